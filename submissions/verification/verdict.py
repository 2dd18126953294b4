"""What verification finds."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from submissions.devkit import Watched

_MOST_NAMED = 5  # in one sentence


@dataclass
class Verdict:
    """What verification found."""

    images: int
    bytes: int
    """Of all bitstreams."""
    archive_bytes: int
    budget_bytes: int | None
    count: str
    """Whether the bytes of the ``streams`` or of the ``archive`` count."""
    megapixels: float
    watched: Watched | None = None
    """How the submission's own decoder ran."""
    confirmed: list[str] = field(default_factory=list)
    """What was compared with something else than the manifest, for every image, and is as the manifest says."""
    from_table: bool = False
    """Whether that is what the table holds, and so what was measured."""
    perturbed: list[str] = field(default_factory=list)
    """What became of the images under each of the other conditions."""
    unchecked: list[str] = field(default_factory=list)
    """What couldn't be checked, and why."""
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all that was checked is as the manifest says."""
        return not self.failures

    @property
    def unenforced(self) -> list[str]:
        """Limits of the server that the decoder ran without, and why."""
        return self.watched.unenforced if self.watched else []

    @property
    def counted(self) -> int:
        """Bytes of what counts."""
        return self.archive_bytes if self.count == "archive" else self.bytes


def cite(names: Iterable[str]) -> str:
    """Some of the names, and how many more there are."""
    found = sorted(names)
    more = f" and {len(found) - _MOST_NAMED:,} more" if len(found) > _MOST_NAMED else ""
    return ", ".join(found[:_MOST_NAMED]) + more
