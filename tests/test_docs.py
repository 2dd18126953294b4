"""The code in the documentation runs, and gives what its comments say."""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_the_solver_page() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "solver.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", "".join(blocks)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1] == "6.0 970"
    assert lines[2] == "True 6.0"
    assert lines[4].startswith("[ 300 ")
