"""Completion, by the protocol of the shells' scripts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ALLOCATOR = str(Path(sys.executable).with_name("allocator"))


def complete(shell: str, line: str) -> str:
    """What the shell's script gets for a line with the cursor at its end."""
    by_shell = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }
    env = {**os.environ, **by_shell[shell], "_ALLOCATOR_COMPLETE": f"complete_{shell}"}
    done = subprocess.run([ALLOCATOR], env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script_and_the_commands(shell: str) -> None:
    env = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = subprocess.run(
        [ALLOCATOR, "--show-completion", shell], env=env, capture_output=True, text=True, check=True
    )
    assert f"complete_{shell}" in script.stdout
    assert {"frontier", "curves", "bd"} <= set(complete(shell, "allocator plot ").replace('"', " ").split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("allocator solve run.db --codec j", {"jpeg", "jpeg2000", "jxl"}),
        ("allocator compare run.db --metric ps", {"psnr"}),
        ("allocator submit run.db --edition 2021-", {"2021-test", "2021-validation"}),
        ("allocator train llic", {"llic"}),
        ("allocator bank show po-d", {"po-dkic"}),
        ("allocator solve run.db --rule ", {"pooled", "mean"}),
        ("allocator encode x.png --codec nobody", set()),
    ],
)
def test_values_are_completed(line: str, expected: set[str]) -> None:
    assert set(complete("bash", line).split()) == expected


def test_errors_do_not_disturb_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.toml").write_text("this is [ no TOML")
    monkeypatch.setenv("ALLOCATOR_COMMANDS", str(tmp_path / "broken.toml"))
    assert complete("bash", "allocator encode x.png --codec j").split() == []
