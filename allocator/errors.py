"""The base of this package's errors."""


class AllocatorError(Exception):
    """The message is one sentence for a person: what is wrong, where, and what to do."""
