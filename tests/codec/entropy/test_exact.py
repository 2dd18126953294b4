import numpy as np
import pytest
import torch

from codec import BitstreamError
from codec.entropy.coder import SymbolDecoder, SymbolEncoder
from codec.entropy.exact import GRID, MARGIN, ReadCloseCalls, Rounding, WriteCloseCalls


def near_borders(count: int, distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and scale indices, every third of them within ``distance`` of a rounding border."""
    random = np.random.default_rng(3)
    means, scales = random.normal(0, 20, count), random.uniform(0, 63, count)
    close = np.arange(count) % 3 == 0
    means[close] = (np.floor(means[close] * GRID) + 0.5) / GRID
    scales[close] = np.clip(np.floor(scales[close]), 0, 62) + 0.5
    noise = random.uniform(-distance, distance, (2, count)) * close
    return torch.from_numpy(means + noise[0]), torch.from_numpy(scales + noise[1])


@pytest.mark.parametrize("count", [1, 7, 1000, 70_000])  # the last one's places need more than 16 bits
def test_a_machine_with_other_last_digits_rounds_alike(count: int) -> None:
    means, scales = near_borders(count, 1e-12)
    encoder = SymbolEncoder()
    writing = WriteCloseCalls(encoder)
    written = Rounding(writing)(means, scales)
    assert writing.listed == 2 * len(range(0, count, 3))
    torch.manual_seed(0)
    noise = 1e-10 * torch.randn(2, count, dtype=torch.float64)
    read = Rounding(ReadCloseCalls(SymbolDecoder(encoder.finish())))(means + noise[0], scales + noise[1])
    assert torch.equal(read.means, written.means)
    assert torch.equal(read.scales, written.scales)


def test_without_the_list_it_would_not() -> None:
    means, scales = near_borders(1000, 1e-12)
    plain = [Rounding(WriteCloseCalls(SymbolEncoder()), margin=0.0)(means + noise, scales) for noise in (0, 1e-10)]
    assert not torch.equal(plain[0].means, plain[1].means)


def test_rounding_moves_means_by_half_a_step_at_most() -> None:
    means, scales = near_borders(1000, 1e-3)
    rounded = Rounding(WriteCloseCalls(SymbolEncoder()))(means, scales)
    assert ((rounded.means / GRID - means).abs() <= 0.5 / GRID + MARGIN).all()
    assert ((rounded.scales - scales).abs() <= 0.5 + MARGIN).all()


def test_clamped_numbers_stay_in_range() -> None:
    wild = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e300], dtype=torch.float64)
    rounded = Rounding(WriteCloseCalls(SymbolEncoder()))(wild, wild)
    assert rounded.means.abs().max() <= (1 << 14) * GRID
    assert rounded.scales.min() >= 0
    assert rounded.scales.max() <= 63


def test_a_list_that_can_not_be_is_refused() -> None:
    encoder = SymbolEncoder()
    WriteCloseCalls(encoder).settle(torch.tensor([70_000]), torch.tensor([True]), 70_001)
    with pytest.raises(BitstreamError, match="damaged"):
        ReadCloseCalls(SymbolDecoder(encoder.finish())).settle(torch.empty(0), torch.empty(0), 65_537)
