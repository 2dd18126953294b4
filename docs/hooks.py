"""Add the pages that are not in this folder to the site: model cards, notebooks and the commands."""

import os.path
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "codec/banks/dkic/README.md": "reference/dkic.md",
    "codec/banks/po-dkic/README.md": "reference/po-dkic.md",
    "notebooks/README.md": "notebooks/index.md",
}
"""The pages outside this folder: their paths in the repository, and in the site."""
COMMANDS = "reference/commands.md"
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?([^<]+)</code>")
_LINK = re.compile(r"\[((?:`[^`]*`|[^\]`])*)\]\(([^)\s]+)\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages outside this folder, and the notebooks with their pictures."""
    for place, page in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / place)))
    for path in ROOT.glob("notebooks/*.ipynb"):
        markdown, found = MarkdownExporter().from_filename(str(path), {"unique_key": path.stem})
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=markdown))
        for name, picture in found["outputs"].items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill the page of commands; convert links between files of the repository to links of the site."""
    uri = page.file.src_uri
    if uri == COMMANDS:
        markdown += _commands()
    place = next((place for place, target in ELSEWHERE.items() if target == uri), f"docs/{uri}")
    return _LINK.sub(lambda link: _relink(link, place, uri), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Convert roles in docstrings (``:class:`Name` ``) to links if the site has the name, and to code otherwise."""
    html = _ROLE.sub(r'<autoref optional identifier="\1"><code>\1</code></autoref>', html)
    return html.replace("::</p>", ":</p>")  # before a block


def _relink(link: re.Match[str], place: str, uri: str) -> str:
    text, target = link.groups()
    path, hash_, anchor = target.partition("#")
    if not path or ":" in path:
        return link[0]
    aim = os.path.normpath(os.path.join(os.path.dirname(place), path))  # noqa: PTH118, PTH120  (no file's path)
    if aim.startswith("docs/"):
        aim = aim.removeprefix("docs/")
    elif aim in ELSEWHERE or aim.endswith(".ipynb"):
        aim = ELSEWHERE.get(aim, aim.replace(".ipynb", ".md"))
    elif (ROOT / aim).exists():
        return text  # not on the site
    relative = os.path.relpath(aim, os.path.dirname(uri) or ".")  # noqa: PTH120
    return f"[{text}]({relative}{hash_}{anchor})"


def _commands() -> str:
    command = [sys.executable, "-m", "typer", "allocator.cli", "utils", "docs", "--name", "allocator"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return "\n" + done.stdout.partition("\n")[2]  # without its own heading
