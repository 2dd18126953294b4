"""The rules of each year of the challenge, and of other contests."""

import math
import tomllib
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from submissions.errors import SubmissionError

Count = Literal["streams", "archive"]
CUSTOM = "custom"
"""The name of rules that belong to no edition."""
_BUILT_IN = Path(__file__).parent / "editions.toml"


@dataclass(frozen=True)
class Edition:
    """The rules for an entry."""

    name: str
    targets: tuple[str, ...] = ()
    """Rates in bits per pixel over the whole set, as written."""
    count: Count = "streams"
    """What counts against the budget: the bytes of the bitstreams, or of the whole data archive."""
    caps: dict[str, int] = field(default_factory=dict)
    """Published limits in bytes, by target, instead of ceil(target x pixels / 8)."""
    decoder_bytes: int = 0
    """The limit on the decoder archive in bytes; 0 for none."""
    cpus: int = 2
    memory_gib: float = 12.0
    hours: float = 5.0
    programs: bool = True
    """Whether a decoder may include programs."""

    def __post_init__(self) -> None:
        whole = (self.cpus, self.decoder_bytes, *self.caps.values())
        numbers = (self.cpus, self.memory_gib, self.hours, self.decoder_bytes + 1, *self.caps.values())
        if (
            not isinstance(self.name, str)
            or not all(isinstance(number, int) for number in whole)
            or self.count not in ("streams", "archive")
            or not all(_is_positive(number) for number in numbers)
            or not isinstance(self.programs, bool)
        ):
            raise ValueError("an invalid value")

    def has_target(self, bpp: float) -> bool:
        """Whether a rate is one of the edition's; every rate is, if it names none."""
        return not self.targets or bpp in {float(Fraction(target)) for target in self.targets}

    def cap(self, target: Fraction, pixels: int) -> int:
        """The most bytes at a target for a number of pixels.

        Raises:
            SubmissionError: the published cap is for other images.
        """
        rule = math.ceil(target * pixels / 8)
        printed = {Fraction(text): limit for text, limit in self.caps.items()}.get(target)
        if printed is None:
            return rule
        if self.name in edition_names() and abs(printed - rule) > 1e-3 * printed:
            raise SubmissionError(
                f"The edition {self.name} has a cap of {printed:,} bytes for its own images, but this rate allows "
                f"{rule:,} for yours. For your own images, give only the year."
            )
        return printed


def _is_positive(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < math.inf


def edition_names() -> list[str]:
    """The names of the known editions."""
    return list(tomllib.loads(_BUILT_IN.read_text(encoding="utf-8")))


def find_edition(name: str) -> Edition:
    """An edition by its name, or from a TOML file with the fields of :class:`Edition`.

    Raises:
        SubmissionError: there is no such edition, or the file is invalid.
    """
    known = tomllib.loads(_BUILT_IN.read_text(encoding="utf-8"))
    path = Path(name)
    try:
        content = known[name] if name in known else tomllib.loads(path.read_text(encoding="utf-8-sig"))
        targets = content.pop("targets", [])
        if not isinstance(targets, list):
            raise ValueError("its targets are not a list")
        targets = tuple(map(str, targets))
        for target in [*targets, *content.get("caps", {})]:
            if Fraction(target) <= 0:
                raise ValueError(f"{target} is not a rate")
        return Edition(content.pop("name", name if name in known else path.stem), targets, **content)
    except OSError:
        names = ", ".join(known)
        raise SubmissionError(f"There is no edition {name!r}; there are {names}, or give a TOML file.") from None
    except (ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise SubmissionError(f"{name}: is not a valid edition file ({error}).") from error
