"""The environment of the devkit's packages."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from submissions.devkit import build_environment
from tests.helpers import posix_only

PYTHON = """#!/bin/sh
mkdir -p "$3/bin"
printf '#!/bin/sh\\nsleep 0.3\\necho installed >> %s\\n' "$0.log" > "$3/bin/python3"
chmod +x "$3/bin/python3"
"""


@posix_only
def test_two_first_runs_at_once_create_one_environment(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(build_environment, tmp_path / "cache" / "devkit", str(python)) for _ in range(2)]
        one, other = (run.result() for run in runs)
    assert one == other
    assert (tmp_path / "python.log").read_text() == "installed\n"
