"""Random crops of photos, the same for the same seed and step."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from codec.base import CodecError, ImageError, RGBImage
from codec.image import SUFFIXES, read_image


class Photos:
    """The photos of a folder in memory, some kept aside for validation.

    Args:
        folder: searched for images, not its subfolders.
        crop: side of the largest crops; smaller images are left out.
        validation: so many images, evenly by name, are never cropped.
        half_size_over: images with a longer side than this are there at half size, too.

    Raises:
        CodecError: there is no such folder, or it holds no image that fits.
    """

    def __init__(self, folder: str | os.PathLike[str], crop: int, validation: int, half_size_over: int) -> None:
        try:
            paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
        except OSError as error:
            raise CodecError(f"{folder}: can't be read as a folder ({error.strerror}).") from error
        self.left_out: list[str] = []
        """One sentence for each image that can't be read."""
        readable: dict[Path, RGBImage] = {}
        for path in paths:
            try:
                readable[path] = read_image(path)
            except ImageError as error:
                self.left_out.append(str(error))
        every = max(1, len(readable) // validation) if validation else len(readable) + 1
        self.validation = list(readable)[every // 2 :: every][:validation]
        digest = hashlib.sha256()
        self.images: list[RGBImage] = []
        for path, image in readable.items():
            if path not in self.validation:
                digest.update(image.tobytes())
                self.images += [one for one in self._sizes(image, half_size_over) if min(one.shape[:2]) >= crop]
        if not self.images:
            raise CodecError(f"{folder}: holds no images of at least {crop} pixels a side to train on.")
        self.fingerprint = digest.hexdigest()
        """SHA-256 of all pixels that are trained on."""
        areas = np.array([image.shape[0] * image.shape[1] for image in self.images], np.float64)
        self._chances = np.sqrt(areas) / np.sqrt(areas).sum()  # large images more often, but not by their area

    @staticmethod
    def _sizes(image: RGBImage, half_size_over: int) -> Sequence[RGBImage]:
        if max(image.shape[:2]) <= half_size_over:
            return [image]
        return [image, np.asarray(Image.fromarray(image).reduce(2))]

    def batch(self, size: int, crop: int, seed: int, step: int) -> Tensor:
        """Crops (size, 3, crop, crop), 0 to 1, flipped at random; ``crop`` at most the photos' own."""
        random = np.random.default_rng((seed, step))
        crops = []
        for index in random.choice(len(self.images), size, p=self._chances):
            image = self.images[index]
            top, left = (random.integers(side - crop + 1) for side in image.shape[:2])
            part = image[top : top + crop, left : left + crop]
            crops.append(part[:, ::-1] if random.random() < 0.5 else part)
        return torch.from_numpy(np.stack(crops)).movedim(3, 1).float() / 255
