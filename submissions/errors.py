"""The base of this package's errors."""


class SubmissionError(Exception):
    """A submission can't be written or isn't sound; the message is one sentence for a person."""
