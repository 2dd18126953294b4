"""The README is short and starts with how to install; tests/test_docs.py runs its commands."""

from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 150


def test_two_commands_install_and_test() -> None:
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert [line.rpartition(" && ")[2] for line in commands] == [
        ".venv/bin/allocator demo",
        ".venv/bin/python -m pytest -n 2 --dist loadfile",
    ]
