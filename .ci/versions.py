#!/usr/bin/env python3
"""The versions that the project is tested with. Needs Python 3.11 or later, git, and a network.

``python3 .ci/versions.py pin`` writes .ci/constraints.txt, the newest versions that pyproject.toml admits, for the
package, its tests and its documentation. Run the tests with them before you commit it.

``python3 .ci/versions.py check newest`` runs the README's first command on a copy of the last commit, and there, with
the newest versions, the fast part of the tests. ``check oldest`` runs that part with the lowest version that
pyproject.toml admits of each of its requirements. If tests fail, packages are changed to their tested versions until
they pass: the last one changed is named.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
_RETRIED = 5  # failed tests that are run again to find the package to blame
HEADER = """\
# The versions that the project is tested with, made by `python3 .ci/versions.py pin`. Don't edit.
"""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """A command that has to succeed."""
    subprocess.run([*map(str, command)], cwd=cwd, check=True)


class Uv:
    """uv in an environment of its own. It resolves in seconds what takes pip minutes."""

    def __init__(self, folder: Path) -> None:
        run(sys.executable, "-m", "venv", folder / "tools")
        self._python = folder / "tools" / "bin" / "python"
        run(self._python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv")
        # what this machine's owner demands of pip holds here too
        command = [self._python, "-m", "pip", "config", "list"]
        listed = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout
        paths = " ".join(re.findall(r"constraint='([^']*)'$", listed, re.MULTILINE)).split()
        self._demanded = [word for path in paths for word in ("--constraint", path)]
        os.environ.setdefault("UV_NATIVE_TLS", "1")

    def __call__(self, *command: str | Path, cwd: Path = ROOT) -> None:
        run(self._python, "-m", "uv", *command, cwd=cwd)

    def compile(self, out: Path, *options: str) -> None:
        """Write the versions of the project's requirements."""
        self("pip", "compile", "--quiet", "--no-header", *options, *self._demanded, "-o", out, "pyproject.toml")

    def install(self, python: Path, *options: str | Path, cwd: Path = ROOT) -> None:
        self("pip", "install", "--quiet", "--python", python, *options, cwd=cwd)

    def installed(self, python: Path) -> dict[str, str]:
        """Versions by package."""
        command = [self._python, "-m", "uv", "pip", "freeze", "--python", python]
        return versions(subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout)


def versions(text: str) -> dict[str, str]:
    """Of lines ``name==version``; of several lines for one name, the first: that for the oldest Python."""
    found: dict[str, str] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        found.setdefault(name.lower().replace("_", "-"), version)
    return found


def pin(uv: Uv) -> None:
    """Write the constraints."""
    before = versions(CONSTRAINTS.read_text()) if CONSTRAINTS.exists() else {}
    uv.compile(CONSTRAINTS, "--upgrade", "--universal", "--python-version", "3.11", "--extra", "dev", "--no-annotate")
    text = CONSTRAINTS.read_text()
    CONSTRAINTS.write_text(HEADER + text)
    for name, version in versions(text).items():
        if before.get(name) != version:
            print(f"{name} {before.get(name, '(new)')} -> {version}")


def newest(uv: Uv, folder: Path) -> tuple[Path, Path]:
    """Where the README's first command was run, and its Python, with what tests need."""
    copy = folder / "newest"
    run("git", "clone", "--quiet", ROOT, copy)
    [command] = re.findall(r"^python3 -m venv .*allocator demo$", (ROOT / "README.md").read_text(), re.MULTILINE)
    subprocess.run(command, shell=True, cwd=copy, check=True)
    python = copy / ".venv" / "bin" / "python"
    uv.install(python, ".[checks]", cwd=copy)
    return copy, python


def oldest(uv: Uv, folder: Path) -> tuple[Path, Path]:
    """Where tests are run, and a Python with the oldest versions of all that pyproject.toml requires directly."""
    python = folder / "oldest" / "bin" / "python"
    uv("venv", "--quiet", "--python", sys.executable, folder / "oldest")
    uv.compile(folder / "oldest.txt", "--resolution", "lowest-direct", "--extra", "test", "--no-annotate")
    uv.install(python, "-r", folder / "oldest.txt")
    uv.install(python, "--no-deps", ROOT)
    return ROOT, python


def passes(python: Path, cwd: Path, cache: Path, *options: str) -> bool:
    """Whether the fast tests pass, or those that pytest's options name."""
    command = [python, "-m", "pytest", "-q", "-o", f"cache_dir={cache}", "-m", "fast", *options]
    return not subprocess.run([*map(str, command)], cwd=cwd, check=False).returncode


def culprit(uv: Uv, python: Path, cwd: Path, cache: Path) -> str:
    """Which package's version made tests fail.

    Packages get their tested versions one after the other; the one with which the failed tests pass is to blame.
    """
    tested, installed = versions(CONSTRAINTS.read_text()), uv.installed(python)
    names = sorted(name for name, version in installed.items() if tested.get(name, version) != version)
    if not names:
        return "all versions are the tested ones"
    record = cache / "v" / "cache" / "lastfailed"
    failed = [*json.loads(record.read_text())][:_RETRIED] if record.exists() else []
    before, after = ([f"{name}=={which[name]}" for name in names] for which in (installed, tested))

    def passes_with(count: int) -> bool:
        uv.install(python, "--no-deps", *after[:count], *before[count:])
        return passes(python, cwd, cache, "-x", *failed)

    uv.install(python, "--constraint", CONSTRAINTS, *after)  # with what only these need
    low, high = 0, len(names)
    if not passes_with(high):
        return "the tests fail with the tested versions too"
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes_with(middle) else (middle, high)
    return f"{before[low]} breaks the tests, {after[low]} doesn't"


def check(uv: Uv, which: str, folder: Path) -> int:
    """Run the fast tests with other versions than the tested ones; the exit status."""
    start = time.monotonic()
    cwd, python = {"newest": newest, "oldest": oldest}[which](uv, folder)
    print(f"{which} versions: installed in {time.monotonic() - start:.0f} s", flush=True)
    start = time.monotonic()
    ok = passes(python, cwd, folder / "cache", "-n", "2", "--dist", "loadfile")
    print(f"{which} versions: tested in {time.monotonic() - start:.0f} s", flush=True)
    if not ok:
        print(f"{which} versions: {culprit(uv, python, cwd, folder / 'cache')}", flush=True)
    return 0 if ok else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("pin")
    commands.add_parser("check").add_argument("which", choices=["newest", "oldest"])
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and leave no gigabytes behind
    with tempfile.TemporaryDirectory(prefix="versions-") as name:
        folder = Path(name)
        uv = Uv(folder)
        if given.command == "check":
            return check(uv, given.which, folder)
        pin(uv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
