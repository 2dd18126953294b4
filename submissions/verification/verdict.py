"""The result of verification."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from submissions.devkit import Watched

_MOST_NAMED = 5  # in one sentence


@dataclass
class Verdict:
    """The findings of verification."""

    images: int
    bytes: int
    """Bytes of all bitstreams."""
    archive_bytes: int
    budget_bytes: int | None
    count: str
    """What counts: the bytes of the ``streams`` or of the ``archive``."""
    megapixels: float
    watched: Watched | None = None
    """The run of the submission's own decoder."""
    confirmed: list[str] = field(default_factory=list)
    """Values that were checked for every image against an independent source, and match the manifest."""
    from_table: bool = False
    """Whether these values are those of the table, and therefore measured."""
    perturbed: list[str] = field(default_factory=list)
    """The results under each of the other conditions."""
    unchecked: list[str] = field(default_factory=list)
    """The checks that were not possible, and the reasons."""
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether everything that was checked matches the manifest."""
        return not self.failures

    @property
    def unenforced(self) -> list[str]:
        """Limits of the server that were not enforced, and the reasons."""
        return self.watched.unenforced if self.watched else []

    @property
    def counted(self) -> int:
        """The bytes that count."""
        return self.archive_bytes if self.count == "archive" else self.bytes


def cite(names: Iterable[str]) -> str:
    """Some of the names, and the number of others."""
    found = sorted(names)
    more = f" and {len(found) - _MOST_NAMED:,} more" if len(found) > _MOST_NAMED else ""
    return ", ".join(found[:_MOST_NAMED]) + more
