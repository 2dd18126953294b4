"""Conditions that must not affect decoders: threads, batches, and sums that differ in their last digits."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from codec.entropy import latent_coder
from codec.learned import LearnedCodec


def coder(codec: LearnedCodec) -> latent_coder.LatentCoder:
    return codec._network(codec.bank.levels[0].weights)[1]


def priors(codec: LearnedCodec) -> nn.Module:
    found = coder(codec).priors
    assert isinstance(found, nn.Module)
    return found


def networks_of(parameters: nn.Module) -> list[nn.Module]:
    """The networks that predict parameters, each a part of equation 2."""
    space_channel = parameters.space_channel
    assert isinstance(space_channel, nn.Module)
    found: list[nn.Module] = [parameters.hyper_synthesis]  # type: ignore[list-item]
    for name, group in space_channel.named_children():
        if name == "spatial_contexts":
            found += [one for contexts in group.children() for one in contexts.children()]
        else:
            found += list(group.children())
    return found


@contextlib.contextmanager
def changed_outputs(modules: list[nn.Module], change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    hooks = [module.register_forward_hook(lambda m, i, out: change(out)) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def in_batches(parameters: nn.Module) -> Iterator[None]:
    """Every convolution works on three images at once."""
    convolutions = [m for m in parameters.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d)]
    before = [m.register_forward_pre_hook(lambda m, x: x[0].repeat(3, *[1] * (x[0].dim() - 1))) for m in convolutions]
    after = [m.register_forward_hook(lambda m, i, out: out[1:2]) for m in convolutions]
    try:
        yield
    finally:
        for hook in [*before, *after]:
            hook.remove()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def noisy(size: float, seed: int, relative: bool = False) -> Callable[[Tensor], Tensor]:
    """Adds normal noise of ``size``, times each value's own magnitude if ``relative``, as rounding's is."""
    generator = torch.Generator().manual_seed(seed)

    def change(out: Tensor) -> Tensor:
        noise = size * torch.randn(out.shape, generator=generator, dtype=out.dtype)
        return out + noise * (out.abs() if relative else 1)

    return change
