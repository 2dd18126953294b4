"""What the site has beyond this folder's pages: model cards and notebooks, which lie elsewhere, and the commands."""

import os.path
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
ELSEWHERE = {"codec/banks/po-dkic/README.md": "reference/po-dkic.md", "notebooks/README.md": "notebooks/index.md"}
"""Pages by their places in the repository, and in the site."""
COMMANDS = "reference/commands.md"
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?([^<]+)</code>")
_LINK = re.compile(r"\[((?:`[^`]*`|[^\]`])*)\]\(([^)\s]+)\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Take in what lies elsewhere."""
    notebooks = [f"notebooks/{path.name}" for path in ROOT.glob("notebooks/*.ipynb")]
    for place, page in [*ELSEWHERE.items(), *zip(notebooks, notebooks, strict=True)]:
        if (ROOT / place).exists():
            files.append(File.generated(config, page, abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill the page of commands; turn links that are right in the repository into the site's."""
    uri = page.file.src_uri
    if uri == COMMANDS:
        markdown += _commands()
    place = next((place for place, target in ELSEWHERE.items() if target == uri), f"docs/{uri}")
    return _LINK.sub(lambda link: _relink(link, place, uri), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Turn docstrings' roles (``:class:`Name` ``) into links where the site has the name, and into code elsewhere."""
    html = _ROLE.sub(r'<autoref optional identifier="\1"><code>\1</code></autoref>', html)
    return html.replace("::</p>", ":</p>")  # before what is set apart


def _relink(link: re.Match[str], place: str, uri: str) -> str:
    text, target = link.groups()
    path, hash_, anchor = target.partition("#")
    if not path or ":" in path:
        return link[0]
    aim = os.path.normpath(os.path.join(os.path.dirname(place), path))  # noqa: PTH118, PTH120  (no file's path)
    if aim.startswith("docs/"):
        aim = aim.removeprefix("docs/")
    elif aim in ELSEWHERE or aim.endswith(".ipynb"):
        aim = ELSEWHERE.get(aim, aim)
    elif (ROOT / aim).exists():
        return text  # the repository's alone
    relative = os.path.relpath(aim, os.path.dirname(uri) or ".")  # noqa: PTH120
    return f"[{text}]({relative}{hash_}{anchor})"


def _commands() -> str:
    command = [sys.executable, "-m", "typer", "allocator.cli", "utils", "docs", "--name", "allocator"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return "\n" + done.stdout.partition("\n")[2]  # its first line is a heading of its own
