"""The page of formats matches the code."""

import re
from pathlib import Path

from submissions.format_versions import FORMATS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "formats.md"


def test_the_page_names_each_format_and_its_versions() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| `([^`]+)\.py`", PAGE.read_text(), re.MULTILINE)
    said = {name: (int(written), int(oldest), module.replace("/", ".")) for name, written, oldest, module in rows}
    assert said == FORMATS
