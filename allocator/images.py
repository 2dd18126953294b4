"""Which images a set holds, and what each is called."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from allocator.errors import AllocatorError
from codec.image import SUFFIXES, is_safe_name


class ImageFile(NamedTuple):
    """One image of a set."""

    name: str
    """Unique in the set: the path inside the folder that was given, or the file's name; no suffix; ``/`` inside."""
    path: Path


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[ImageFile]:
    """The images named by files and folders, sorted by name.

    Folders are searched to the bottom for files with an image's suffix; hidden files and folders are left out.
    A file that is named itself is taken whatever its suffix.

    Raises:
        AllocatorError: a path doesn't exist, a folder holds no image, two images share a name, or a name
            isn't text.
    """
    found: dict[Path, ImageFile] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = [
                file
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in SUFFIXES
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            ]
            if not files:
                raise AllocatorError(f"{path}: this folder holds no images.")
            for file in files:
                found[file.resolve()] = ImageFile(file.relative_to(path).with_suffix("").as_posix(), file)
        elif path.exists():
            found.setdefault(path.resolve(), ImageFile(path.stem, path))
        else:
            raise AllocatorError(f"{path}: there is no such file or folder.")
    by_name: dict[str, ImageFile] = {}
    for image in found.values():
        try:
            image.name.encode()
        except UnicodeEncodeError:
            raise AllocatorError(f"{str(image.path)!r}: its name isn't valid UTF-8; rename it.") from None
        if not is_safe_name(image.name):
            raise AllocatorError(f"{image.path}: {image.name!r} is no name that every system can write; rename it.")
        if other := by_name.get(image.name):
            raise AllocatorError(
                f"{other.path} and {image.path} would both be called {image.name!r}; rename one, "
                "or, if they are in different folders, give the folder that holds both."
            )
        by_name[image.name] = image
    return sorted(found.values())
