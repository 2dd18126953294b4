"""The dynamic kernel in Triton's language, for :mod:`codec.training.triton_kernel`.

A program takes one group of channels at some neighbouring positions. Features have channels last; every array has one
stride for all positions.
"""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _corner(features, x, y, at_x: tl.constexpr, at_y: tl.constexpr, height, width, valid, channel_offsets, stride):
    """Values (BLOCK, CHANNELS) at one of the four positions around (x, y), its weight, and where it lies."""
    left, top = tl.floor(x), tl.floor(y)
    column, row = left + at_x, top + at_y
    inside = valid & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = (row.to(tl.int32) * width + column.to(tl.int32))[:, None] * stride + channel_offsets[None, :]
    values = tl.load(features + place, mask=inside[:, None], other=0.0)
    across = x - left if at_x else 1 - (x - left)
    down = y - top if at_y else 1 - (y - top)
    return values, across, down, place, inside


@triton.jit
def _position(offsets, modulation, at_offset, at_weight, o_c, m_c, valid, k, column, row, SIDE: tl.constexpr):
    """The location and the weight of position ``k`` of the kernel."""
    x = column + (k % SIDE - SIDE // 2) + tl.load(offsets + 2 * k * o_c + at_offset, mask=valid, other=0.0)
    y = row + (k // SIDE - SIDE // 2) + tl.load(offsets + (2 * k + 1) * o_c + at_offset, mask=valid, other=0.0)
    return x, y, tl.load(modulation + k * m_c + at_weight, mask=valid, other=0.0)


@triton.jit
def _program(height, width, f_b, f_c, f_p, GROUPS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """The work of this program: image and group, positions, and the offsets of their features from ``start``."""
    batch, group = tl.program_id(1) // GROUPS, tl.program_id(1) % GROUPS
    position = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel_offsets = tl.arange(0, CHANNELS) * f_c
    start = batch * f_b + group * CHANNELS * f_c
    places = position[:, None] * f_p + channel_offsets[None, :]
    return batch, group, position, position < height * width, channel_offsets, start, places


@triton.jit
def forward(
    features,
    offsets,
    modulation,
    out,
    height,
    width,
    f_b,
    f_c,
    f_p,
    o_b,
    o_c,
    o_p,
    m_b,
    m_c,
    m_p,
    GROUPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    SIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``out``: as the features."""
    batch, group, position, valid, channel_offsets, start, places = _program(
        height, width, f_b, f_c, f_p, GROUPS, CHANNELS, BLOCK
    )
    column, row = position % width, position // width
    offsets += batch * o_b + group * 2 * SIDE * SIDE * o_c
    modulation += batch * m_b + group * SIDE * SIDE * m_c
    at_offset, at_weight = position * o_p, position * m_p
    total = tl.zeros((BLOCK, CHANNELS), tl.float32)
    for k in range(SIDE * SIDE):
        x, y, weight = _position(offsets, modulation, at_offset, at_weight, o_c, m_c, valid, k, column, row, SIDE)
        for corner in tl.static_range(4):
            values, across, down, _, _ = _corner(
                features + start, x, y, corner % 2, corner // 2, height, width, valid, channel_offsets, f_p
            )
            total += values * (weight * across * down)[:, None]
    tl.store(out + start + places, total, mask=valid[:, None])


@triton.jit
def backward(
    features,
    offsets,
    modulation,
    gradient,
    to_features,
    to_offsets,
    to_modulation,
    height,
    width,
    f_b,
    f_c,
    f_p,
    o_b,
    o_c,
    o_p,
    m_b,
    m_c,
    m_p,
    GROUPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    SIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients have the memory layout of their tensors; ``to_features`` begins at zero."""
    batch, group, position, valid, channel_offsets, start, places = _program(
        height, width, f_b, f_c, f_p, GROUPS, CHANNELS, BLOCK
    )
    column, row = position % width, position // width
    of_offsets = batch * o_b + group * 2 * SIDE * SIDE * o_c
    of_modulation = batch * m_b + group * SIDE * SIDE * m_c
    at_offset, at_weight = position * o_p, position * m_p
    given = tl.load(gradient + start + places, mask=valid[:, None], other=0.0)
    for k in range(SIDE * SIDE):
        x, y, weight = _position(
            offsets + of_offsets,
            modulation + of_modulation,
            at_offset,
            at_weight,
            o_c,
            m_c,
            valid,
            k,
            column,
            row,
            SIDE,
        )
        to_weight = tl.zeros((BLOCK,), tl.float32)
        to_x = tl.zeros((BLOCK,), tl.float32)
        to_y = tl.zeros((BLOCK,), tl.float32)
        for corner in tl.static_range(4):
            values, across, down, at, inside = _corner(
                features + start, x, y, corner % 2, corner // 2, height, width, valid, channel_offsets, f_p
            )
            along = tl.sum(values * given, 1)
            to_weight += along * across * down
            to_x += along * down * (2 * (corner % 2) - 1)
            to_y += along * across * (2 * (corner // 2) - 1)
            share = given * (weight * across * down)[:, None]
            tl.atomic_add(to_features + start + at, share, mask=inside[:, None], sem="relaxed")
        tl.store(to_offsets + of_offsets + 2 * k * o_c + at_offset, to_x * weight, mask=valid)
        tl.store(to_offsets + of_offsets + (2 * k + 1) * o_c + at_offset, to_y * weight, mask=valid)
        tl.store(to_modulation + of_modulation + k * m_c + at_weight, to_weight, mask=valid)
