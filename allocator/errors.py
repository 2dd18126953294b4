"""The base of this package's errors, and those that several modules raise."""

from codec.base import UserError


class AllocatorError(UserError):
    """Base of all errors of this package."""


class SolveError(AllocatorError):
    """The problem is malformed, or the solver that it names is unavailable."""
