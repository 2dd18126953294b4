"""The dynamic kernel compared with equation 4, computed sample by sample in float64."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from codec.layers.dynamic_kernel import LiteDCN, dynamic_kernel, dynamic_kernel_gathered
from codec.training.compiled_kernel import compiled_kernel


def formula(features: Tensor, offsets: Tensor, modulation: Tensor) -> Tensor:
    """Equation 4 as it stands, bilinear samples, zero outside."""
    batch, channels, height, width = features.shape
    groups, kernel = modulation.shape[1:3]
    side, each = math.isqrt(kernel), channels // groups
    rows = []
    for b, c, y, x in itertools.product(range(batch), range(channels), range(height), range(width)):
        g, total = c // each, features.new_zeros(())
        for k in range(kernel):
            at_x = x + k % side - side // 2 + offsets[b, g, k, 0, y, x]
            at_y = y + k // side - side // 2 + offsets[b, g, k, 1, y, x]
            left, top = math.floor(at_x.detach()), math.floor(at_y.detach())
            for row, column in itertools.product((top, top + 1), (left, left + 1)):
                if 0 <= row < height and 0 <= column < width:
                    weight = (1 - (at_x - column).abs()) * (1 - (at_y - row).abs())
                    total = total + modulation[b, g, k, y, x] * weight * features[b, c, row, column]
        rows.append(total)
    return torch.stack(rows).view(features.shape)


def example(kernel: int, spread: float, size: tuple[int, int] = (4, 5)) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(kernel)
    features = torch.randn(2, 6, *size, dtype=torch.float64)
    offsets = spread * torch.randn(2, 2, kernel, 2, *size, dtype=torch.float64)
    modulation = torch.randn(2, 2, kernel, *size, dtype=torch.float64).softmax(2)
    return features, offsets, modulation


def compiled(features: Tensor, offsets: Tensor, modulation: Tensor) -> Tensor:
    found = compiled_kernel(features, offsets, modulation)
    if found is None:
        pytest.skip("there is no C compiler")
    return found


@pytest.mark.parametrize("operation", [dynamic_kernel, dynamic_kernel_gathered, compiled])
@pytest.mark.parametrize("kernel", [1, 9, 25])
@pytest.mark.parametrize("spread", [0.4, 6.0])  # 6 positions lead far outside
def test_values_and_gradients_are_the_formulas(operation, kernel: int, spread: float) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = ([t.requires_grad_() for t in example(kernel, spread)] for _ in range(2))
    out, expected = operation(*ours), formula(*theirs)
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()  # type: ignore[no-untyped-call]
    for mine, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, right.grad, rtol=1e-9, atol=1e-9)


def test_bands_of_a_large_image_join_without_a_seam() -> None:
    features, offsets, modulation = example(9, 2.0, (150, 90))
    whole = dynamic_kernel(features, offsets, modulation)
    torch.testing.assert_close(whole, dynamic_kernel_gathered(features, offsets, modulation), rtol=1e-11, atol=1e-11)


def test_untouched_offsets_and_modulation_average_the_neighbourhood() -> None:
    module = LiteDCN(8, 2).double()
    features = torch.randn(1, 8, 7, 9, dtype=torch.float64)
    expected = module.output(torch.nn.functional.avg_pool2d(module.value(features), 3, 1, 1))
    torch.testing.assert_close(module(features), expected)


def test_compiled_for_a_gpu_it_is_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    example_ = [t.float().cuda() for t in example(9, 2.0, (40, 50))]
    with torch.no_grad():
        fused = dynamic_kernel(*example_)
    torch.testing.assert_close(fused.cpu(), dynamic_kernel(*(t.cpu() for t in example_)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_far_positions_change_nothing_in_the_compiled_kernel(threads: int) -> None:
    features, offsets, modulation = example(9, 40.0, (12, 7))
    offsets[0, 0, 0, 0, 0, 0], offsets[0, 0, 0, 1, 1, 1] = 1e30, -1e30
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours, theirs = ([t.clone().requires_grad_() for t in (features, offsets, modulation)] for _ in range(2))
        out, expected = compiled(*ours), dynamic_kernel(*theirs)
        torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)
        (out.sum() + expected.sum()).backward()  # type: ignore[no-untyped-call]
        for mine, right in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine.grad, right.grad, rtol=1e-9, atol=1e-9)
    finally:
        torch.set_num_threads(before)
