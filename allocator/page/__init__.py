"""HTML, CSS and scripts of the pages: the report contains them, and the explorer serves them."""

from importlib.resources import files

from allocator.errors import AllocatorError


def read_part(name: str) -> str:
    """Return the text of a file in this folder, such as ``parts.js``."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def read_plotly() -> str:
    """Return Plotly's script.

    Raises:
        AllocatorError: Plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise AllocatorError('The page needs Plotly: pip install "clic-allocator[report]".') from error
    text: str = get_plotlyjs()
    return text
