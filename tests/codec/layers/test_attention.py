import math

import pytest
import torch
from torch import Tensor

from codec.layers.attention import GatedAttention, WindowAttention


def naive(model: WindowAttention, features: Tensor) -> Tensor:
    """Position by position, each over the list of its window's positions."""
    _, channels, height, width = features.shape
    queries, keys, values = model.queries_keys_values(features)[0].chunk(3)
    out = torch.zeros_like(features[0])
    each = channels // model.heads
    window_of = {
        (y, x): ((y + model.shift) // model.side, (x + model.shift) // model.side)
        for y in range(height)
        for x in range(width)
    }
    for (y, x), window in window_of.items():
        members = [place for place, other in window_of.items() if other == window]
        for head in range(model.heads):
            part = slice(head * each, (head + 1) * each)
            scores = []
            for v, u in members:
                distance = (y - v + model.side - 1) * (2 * model.side - 1) + x - u + model.side - 1
                score = (queries[part, y, x] * keys[part, v, u]).sum() / math.sqrt(each)
                scores.append(score + model.bias[head, distance])
            weights = torch.stack(scores).softmax(0)
            out[part, y, x] = sum(
                weight * values[part, v, u] for weight, (v, u) in zip(weights, members, strict=True)
            )
    whole: Tensor = model.out(out[None])
    return whole


@pytest.mark.parametrize(("size", "shift"), [((8, 8), 0), ((5, 9), 0), ((5, 9), 2), ((1, 1), 2)])
def test_it_is_attention_within_windows(size: tuple[int, int], shift: int) -> None:
    torch.manual_seed(0)
    model = WindowAttention(8, 4, 2, shift).double()
    torch.nn.init.normal_(model.bias)
    features = torch.randn(1, 8, *size, dtype=torch.float64)
    torch.testing.assert_close(model(features), naive(model, features))
    torch.testing.assert_close(model(features.repeat(3, 1, 1, 1))[1:2], model(features))


def test_shifted_windows_carry_it_further() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 8, 16, 16, requires_grad=True)

    def reach(model: torch.nn.Module) -> int:
        (gradient,) = torch.autograd.grad(model(features)[0, :, 3, 3].sum(), features)
        return int((gradient.abs().sum((0, 1)) > 0).nonzero().max()) + 1

    assert reach(WindowAttention(8, 4, 2)) == 4
    assert reach(GatedAttention(8, 4, width=16, heads=2)) == 8
