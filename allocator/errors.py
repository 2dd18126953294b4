"""The base class of this package's errors, and errors that several modules raise."""

from codec.base import UserError


class AllocatorError(UserError):
    """The base class of all errors of this package."""


class SolveError(AllocatorError):
    """The problem is invalid, or its solver is unavailable."""
