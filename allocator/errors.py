"""The base of this package's errors, and those that several modules raise."""


class AllocatorError(Exception):
    """The message is one sentence for a person: what is wrong, where, and what to do."""


class SolveError(AllocatorError):
    """The problem is malformed, or the solver that it names is unavailable."""
