from pathlib import Path

import pytest
from PIL import Image

from allocator.images import ImageFile
from allocator.measure.build import fits
from allocator.measure.worker import identify
from codec import get_codec
from tests import profiles


@pytest.mark.parametrize(("mode", "kept"), [("CMYK", True), ("L", True), ("RGB", False)])
def test_a_codec_without_profiles_keeps_images_whose_pixels_are_converted(
    mode: str, kept: bool, photos: Path, tmp_path: Path
) -> None:
    profile = {"CMYK": profiles.cmyk_profile(), "L": profiles.grey_profile(1.8), "RGB": profiles.DISPLAY_P3}[mode]
    path = tmp_path / "photo.jpg"
    Image.open(photos / "coffee.png").convert(mode).save(path, icc_profile=profile)
    member = identify("profile", ImageFile("photo", str(path)))
    assert fits(get_codec("jxl"), member, "profile") == kept
