"""Colour profiles made by the tests, as small as ICC.1:2010 allows, and photos with them."""

import struct

import numpy as np
from numpy.typing import NDArray

_D50 = (0.9642, 1.0, 0.8249)
# columns: XYZ of the primaries, adapted to D50
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data


def _parametric(*values: float) -> bytes:
    """sRGB's curve from five values, a plain power from one."""
    kind = 0 if len(values) == 1 else 3
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(map(_fixed, values))


SRGB_CURVE = _parametric(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
ADOBE_CURVE = _parametric(563 / 256)


def _profile(kind: bytes, space: bytes, connection: bytes, name: str, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text(name), b"cprt": _text("CC0"), b"wtpt": _xyz(_D50), **tags}
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += tag + struct.pack(">II", place + len(body), len(data))
        body += data
    size = place + len(body)
    head = struct.pack(">I4sI4s4s4s12s4s", size, b"\0" * 4, 0x04200000, kind, space, connection, bytes(12), b"acsp")
    head += bytes(128 - len(head) - 60) + b"".join(map(_fixed, _D50)) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def rgb_profile(name: str, primaries: tuple[tuple[float, ...], ...], curve: bytes) -> bytes:
    """A display's profile: primaries and one curve."""
    tags = {tag: _xyz(column) for tag, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", name, tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", f"Grey {gamma}", {b"kTRC": _parametric(gamma)})


def cmyk_profile() -> bytes:
    """A press whose inks darken in steps of their own: a table of two points an ink to L*a*b*."""
    inks = {0: (55.0, -37.0, -50.0), 1: (48.0, 74.0, -3.0), 2: (89.0, -5.0, 93.0), 3: (16.0, 0.0, 0.0)}
    corners = []
    for corner in range(16):  # cyan varies slowest
        used = [ink for ink in range(4) if corner >> (3 - ink) & 1]
        lightness, a, b = 95.0, 0.0, 0.0
        for ink in used:
            lightness *= inks[ink][0] / 95
            a, b = a + inks[ink][1], b + inks[ink][2]
        if 3 in used:
            a, b = 0.2 * a, 0.2 * b
        a, b = (max(-127.0, min(127.0, value)) for value in (a, b))
        corners += [round(lightness / 100 * 0xFF00), round((a + 128) * 0x100), round((b + 128) * 0x100)]
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + struct.pack(">HH", 2, 2)
    table += struct.pack(">8H", *[0, 65535] * 4) + struct.pack(">48H", *corners) + struct.pack(">6H", *[0, 65535] * 3)
    return _profile(b"prtr", b"CMYK", b"Lab ", "Test press", {b"A2B0": table})


DISPLAY_P3 = rgb_profile("Display P3", P3, SRGB_CURVE)
ADOBE_RGB = rgb_profile("Adobe RGB (1998)", ADOBE, ADOBE_CURVE)


def linear(name: str, rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """XYZ (D50) of pixels in a space, by the definitions, to compare with."""
    values = rgb / 255.0
    if name == "adobe":
        return np.asarray(values ** (563 / 256) @ np.array(ADOBE))
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return np.asarray(light @ np.array(P3 if name == "p3" else SRGB))


SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
