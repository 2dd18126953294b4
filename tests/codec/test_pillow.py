from pathlib import Path

import numpy as np
import pytest
from PIL import ImageCms

from codec import BitstreamError, CodecError, get_codec, read_image
from codec.picture import Picture
from codec.pillow import PillowCodec

NAMES = ["avif", "hevc", "jpeg", "jpeg2000", "jxl", "webp"]


@pytest.fixture(params=NAMES)
def codec(request: pytest.FixtureRequest) -> PillowCodec:
    found = get_codec(request.param)
    assert isinstance(found, PillowCodec)
    return found


def test_a_ladder_climbs_in_bytes_and_quality(codec: PillowCodec, photos: Path) -> None:
    image = read_image(photos / "coffee.png")
    streams = [codec.encode(image, level) for level in range(len(codec.levels))]
    sizes = [len(stream) for stream in streams]
    errors = [float(np.mean((codec.decode(s).astype(float) - image) ** 2)) for s in streams]
    assert len(sizes) >= 12
    assert sizes == sorted(sizes)
    assert sizes[-1] > 4 * sizes[0]
    assert errors[-1] < errors[len(errors) // 2] < errors[0]


def test_encoding_twice_gives_the_same_bytes(codec: PillowCodec, photos: Path) -> None:
    image = read_image(photos / "rocket.png")
    assert codec.encode(image, 5) == codec.encode(image, 5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (13, 1), (17, 33)])
def test_any_size_comes_back_at_that_size(codec: PillowCodec, photos: Path, shape: tuple[int, int]) -> None:
    image = read_image(photos / "chelsea.png")[: shape[0], : shape[1]]
    decoded = codec.decode(codec.encode(image, len(codec.levels) - 1))
    assert decoded.shape == image.shape
    assert abs(decoded.astype(int) - image).mean() < 12


def test_truncated_or_foreign_data_is_refused(codec: PillowCodec, photos: Path) -> None:
    image = read_image(photos / "coffee.png")
    stream = codec.encode(image, 6)
    other = get_codec("webp" if codec.name == "jpeg" else "jpeg").encode(image, 6)
    for damaged in (b"", stream[:1], stream[:40], stream[: len(stream) // 2], stream[:-3], other, b"\0" * 500):
        with pytest.raises(BitstreamError, match=f"not a complete {codec.name} bitstream") as caught:
            codec.decode(damaged)
        assert "\n" not in str(caught.value)


TAILS = (b"\0", b"\xff", b"\xff\xd9", bytes(1000), b"\0\0\0\x10free89abcdef", b"\0\0\0\x10mdat89abcdef")


def test_bytes_behind_the_end_are_refused(codec: PillowCodec, photos: Path) -> None:
    """Also of files with profile and transparency, which are of other structure."""
    image = read_image(photos / "coffee.png")
    plain = codec.encode(image, 6)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.dstack([image, image[..., :1]]) if codec.keeps_alpha else image
    whole = codec.picture_encoder(Picture(pixels, profile if codec.keeps_profile else None))(6)
    assert codec.decode_picture(whole).alpha == codec.keeps_alpha
    for stream in (plain, whole):
        for tail in (*TAILS, stream):
            with pytest.raises(BitstreamError, match="other bytes follow its end"):
                codec.decode(stream + tail)
            with pytest.raises(BitstreamError, match="other bytes follow its end"):
                codec.decode_picture(stream + tail)


def test_an_image_too_wide_for_the_format_is_named() -> None:
    with pytest.raises(CodecError, match="webp can't encode 20000x4 pixels"):
        get_codec("webp").encode(np.zeros((4, 20000, 3), np.uint8), 3)


def test_fingerprints_tell_levels_and_versions_apart(codec: PillowCodec) -> None:
    prints = {codec.fingerprint(level) for level in range(len(codec.levels))}
    assert len(prints) == len(codec.levels)
    codec.version += " patched"
    assert prints.isdisjoint(codec.fingerprint(level) for level in range(len(codec.levels)))
