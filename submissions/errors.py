"""The base class of this package's errors."""

from codec.base import UserError


class SubmissionError(UserError):
    """A submission can't be written, or is invalid."""
