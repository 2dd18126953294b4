"""The tested versions cover what pyproject.toml requires for the package, its tests and its documentation."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [
    Requirement(line)
    for line in (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def required(extra: str = "dev") -> Iterator[Requirement]:
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == PROJECT["name"]:
            for other in requirement.extras:
                yield from required(other)
        else:
            yield requirement


REQUIREMENTS = sorted({*map(Requirement, PROJECT["dependencies"]), *required()}, key=str)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_a_tested_version_is_admitted(requirement: Requirement, python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    [pin] = [
        pin for pin in PINS if pin.name == requirement.name and (not pin.marker or pin.marker.evaluate(environment))
    ]
    [version] = pin.specifier
    assert version.operator == "=="
    assert version.version in requirement.specifier
