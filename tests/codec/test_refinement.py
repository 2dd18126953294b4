"""Searched latents: better for the same decoder, by real bitstreams."""

import itertools
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from allocator.images import SHIPPED_PHOTOS
from codec import CodecError, RGBImage, get_codec, read_image
from codec.bank import Bank
from codec.bitstream import unpack
from codec.learned import LearnedCodec
from codec.refinement import DESCENT, _Region, _Search, mse, price_of_byte, refine

LEVEL, STEPS = 9, 6


def cost(codec: LearnedCodec, image: RGBImage, data: bytes, price: float) -> float:
    error = (codec.decode(data).astype(float) - image) / 255
    return float((error**2).mean()) + price * len(data)


@pytest.fixture(scope="module")
def dkic() -> LearnedCodec:
    found = get_codec("dkic")
    assert isinstance(found, LearnedCodec)
    return found


@pytest.fixture(scope="module")
def crop() -> RGBImage:
    return read_image(Path(SHIPPED_PHOTOS, "pier.jpg"))[200:305, 200:327].copy()  # 105 x 127: multiples of nothing


@pytest.fixture(scope="module")
def price(dkic: LearnedCodec, crop: RGBImage) -> float:
    return price_of_byte(dkic, crop, LEVEL)


@pytest.fixture(scope="module")
def refined(dkic: LearnedCodec, crop: RGBImage) -> bytes:
    return refine(dkic, crop, LEVEL, steps=STEPS)


def test_refined_bitstreams_cost_less(dkic: LearnedCodec, crop: RGBImage, refined: bytes, price: float) -> None:
    plain = dkic.encode(crop, LEVEL)
    assert cost(dkic, crop, refined, price) < 0.995 * cost(dkic, crop, plain, price)
    assert unpack(refined)._replace(payload=b"") == unpack(plain)._replace(payload=b"")


def test_both_phases_lower_the_loss_and_no_step_raises_it(dkic: LearnedCodec, crop: RGBImage, price: float) -> None:
    small = crop[:80, :80].copy()
    search = _Search(dkic, small, LEVEL, mse, price)
    whole = _Region(0, 0, 80, 80)

    def loss() -> float:
        return search.code((search.latents, search.hyper_latents), whole, relaxed=True, differentiable=False).loss

    losses = [loss(), *(loss() for _ in search.improve(whole, DESCENT + 4))]
    assert all(after <= before + 0.1 for before, after in itertools.pairwise(losses))  # bits, of float32
    assert losses[DESCENT] < 0.99 * losses[0]
    assert losses[-1] < losses[DESCENT] - 2


def test_another_codec_decodes_them_exactly(dkic: LearnedCodec, refined: bytes, tmp_path: Path) -> None:
    fresh = LearnedCodec(Bank.load(shutil.copytree(dkic.bank.folder, tmp_path / "bank")))
    assert torch.equal(fresh.decode_latents(refined), dkic.decode_latents(refined))
    assert (fresh.decode(refined) == dkic.decode(refined)).all()


def test_refining_is_repeatable(dkic: LearnedCodec, crop: RGBImage, refined: bytes) -> None:
    assert refine(dkic, crop, LEVEL, steps=STEPS) == refined


def test_the_price_is_the_slope_between_the_neighbours(dkic: LearnedCodec, crop: RGBImage, price: float) -> None:
    below, above = (dkic.encode(crop, level) for level in (LEVEL - 1, LEVEL + 1))
    assert cost(dkic, crop, below, price) == pytest.approx(cost(dkic, crop, above, price), rel=1e-5)


def test_a_price_moves_along_the_trade_off(dkic: LearnedCodec, crop: RGBImage, price: float) -> None:
    small = crop[-64:, -64:].copy()
    dear, cheap = (refine(dkic, small, LEVEL, steps=STEPS, price=factor * price) for factor in (40, 0.4))
    plain = dkic.encode(small, LEVEL)
    assert len(dear) <= len(plain) < len(cheap)
    assert cost(dkic, small, cheap, 0) < cost(dkic, small, plain, 0)


def test_tiles_improve_the_whole_image(dkic: LearnedCodec, crop: RGBImage, price: float) -> None:
    done, judged = [], []

    def distortion(decoded: Tensor, original: Tensor) -> Tensor:
        if not decoded.requires_grad:  # of a whole bitstream
            judged.append(max(decoded.shape[2:]))
        return mse(decoded, original)

    tiled = refine(
        dkic, crop, LEVEL, steps=3, distortion=distortion, tile=64, report=lambda *count: done.append(count)
    )
    assert done == [(step, 12) for step in range(1, 13)]
    assert max(judged) == 64
    before, after = (
        (dkic.decode(data).astype(float) - crop).reshape(105, -1) for data in (dkic.encode(crop, LEVEL), tiled)
    )
    assert all((before[rows] != after[rows]).any() for rows in (slice(0, 40), slice(80, 105)))
    assert cost(dkic, crop, tiled, price) < cost(dkic, crop, dkic.encode(crop, LEVEL), price)


def test_llic_is_refined_too(photo: RGBImage) -> None:
    codec = LearnedCodec(Bank.load(Path(__file__).parents[1] / "golden/0.1.0/banks/llic"))
    small = photo[:64, :64].copy()
    refined = refine(codec, small, 1, steps=8, price=1e-5)
    assert cost(codec, small, refined, 1e-5) < cost(codec, small, codec.encode(small, 1), 1e-5)


def test_without_an_improvement_the_plain_bitstream_is_kept(dkic: LearnedCodec, crop: RGBImage) -> None:
    def inverted(decoded: Tensor, original: Tensor) -> Tensor:  # what the search makes small, real pixels make large
        error = mse(decoded, original)
        return error if not decoded.requires_grad else 1 / (1e-4 + error)

    small = crop[-64:, -64:].copy()
    assert refine(dkic, small, LEVEL, steps=2, distortion=inverted, price=1e-6) == dkic.encode(small, LEVEL)


def test_errors_are_one_sentence(dkic: LearnedCodec, crop: RGBImage) -> None:
    with pytest.raises(CodecError, match="at least one step, not 0"):
        refine(dkic, crop, LEVEL, steps=0)
    with pytest.raises(CodecError, match="multiple of 64 pixels, not 100"):
        refine(dkic, crop, LEVEL, tile=100)
    with pytest.raises(CodecError, match="price of a byte must be positive, not -1"):
        refine(dkic, crop, LEVEL, price=-1)
    with pytest.raises(CodecError, match="isn't finite"):
        refine(dkic, crop[:16, :16].copy(), LEVEL, distortion=lambda one, other: one.sum() * torch.nan, price=1e-6)
    with pytest.raises(CodecError, match="dkic has no levels that determine the price"):
        refine(dkic, crop[:16, :16].copy(), LEVEL, distortion=lambda one, other: one.sum() * 0)
