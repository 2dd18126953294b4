"""The command line. Heavy imports happen inside the commands that use them."""

import errno
import sys

from allocator.cli import banks, comparing, demo, images, metrics, reporting, solving, submitting, tables, training  # noqa: F401  (they register their commands)
from allocator.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; an error is one sentence on stderr and exit status 2, an interrupt 130."""
    try:
        code = app(standalone_mode=True)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 141
    except Exception as error:
        print(_sentence(error), file=sys.stderr)
        code = 2
    sys.exit(code)


def _sentence(error: Exception) -> str:
    """What a person is told; whatever isn't meant for one goes on as a traceback."""
    from allocator.errors import AllocatorError
    from codec.base import CodecError
    from submissions.errors import SubmissionError

    if isinstance(error, AllocatorError | CodecError | SubmissionError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return f"{error.filename or 'A file'}: can't be written ({error.strerror})."
    raise error
