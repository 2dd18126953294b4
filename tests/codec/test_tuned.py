import itertools
from pathlib import Path

import pytest

from codec import CodecError, get_codec, read_image
from codec.pillow import PillowCodec


def sizes(name: str, photos: Path, quality: str = "q66") -> tuple[int, float]:
    """Bytes at a quality, and the decoded image's mean squared error."""
    image = read_image(photos / "coffee.png")
    codec = get_codec(name)
    data = codec.encode(image, list(codec.levels).index(quality))
    return len(data), float(((codec.decode(data).astype(float) - image) ** 2).mean())


def test_chroma_and_effort_change_bytes() -> None:
    plain, tuned = get_codec("avif"), get_codec("avif-speed8-420")
    assert isinstance(tuned, PillowCodec)
    assert (tuned.name, tuned.suffix, tuned.levels) == ("avif-speed8-420", ".avif", plain.levels)
    assert tuned.options == {"subsampling": "4:2:0", "speed": 8, "max_threads": 1}
    assert tuned.version.endswith("4:2:0, speed 8")
    assert plain.fingerprint(3) != tuned.fingerprint(3) != get_codec("avif-420-speed8").fingerprint(3)


def test_settings_reach_the_encoder(photos: Path) -> None:
    assert sizes("avif-420", photos)[0] < sizes("avif", photos)[0]
    assert sizes("webp-method0", photos)[0] != sizes("webp", photos)[0]


def test_steps_are_near_continuous(photos: Path) -> None:
    codec = get_codec("webp-step1")
    assert list(codec.levels) == [f"q{quality}" for quality in range(93)]
    image = read_image(photos / "rocket.png")
    data = [len(codec.encode(image, level)) for level in range(40, 60)]
    assert data[-1] > data[0]
    assert max(b - a for a, b in itertools.pairwise(data)) < 0.1 * data[0]
    assert get_codec("avif-step20").levels == ("q0", "q20", "q40", "q60", "q80", "q87")


def test_jpegli_writes_jpegs_of_its_own(photos: Path) -> None:
    pytest.importorskip("pyjpegli", reason="the extra `jpegli` isn't installed")
    image = read_image(photos / "coffee.png")
    codec = get_codec("jpegli-step4")
    data = codec.encode(image, 8)
    assert data != get_codec("jpeg-step4").encode(image, 8)
    assert (get_codec("jpeg").decode(data) == codec.decode(data)).all()
    assert abs(codec.decode(data).astype(int) - image).mean() < 12
    assert not codec.fits("PNG", alpha=True, profile=False)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("avif-speed12", r"avif takes speed0 to speed10, step1 to step20, 420, 422, 444, not 'speed12'"),
        ("webp-420", "webp takes method0 to method6, step1 to step20, not '420'"),
        ("avif-speed1-speed2", "has the option speed twice"),
    ],
)
def test_other_options_are_refused(name: str, reason: str) -> None:
    with pytest.raises(CodecError, match=reason):
        get_codec(name)
