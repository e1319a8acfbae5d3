"""The rules that no type or test of behaviour holds: contracts that can fail, and sources that fit every machine."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
FORBIDDEN = sorted({name for contract in CONTRACTS for name in contract.get("forbidden_modules", ())})

SOURCES = ("domain", "application", "projections", "interfaces", "scripts", "docs", "tests")
NOT_OURS = {"__pycache__", "node_modules"}
EXAMPLE_USER = "ada"
OF_ONE_MACHINE = re.compile(
    rf"(?<![\w.:/-])(?:/(?:work|root)/|/(?:home|Users)/(?!{EXAMPLE_USER}\b)|(?:\.\./)+shared\b)"
)


def source_files() -> Iterator[Path]:
    for folder in SOURCES:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.is_file() and NOT_OURS.isdisjoint(file.parts):
                yield file


def test_there_are_contracts_of_both_kinds() -> None:
    assert {"layers", "forbidden"} <= {contract["type"] for contract in CONTRACTS}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_module_is_one_that_could_be_imported(name: str) -> None:
    """A misspelt one would be kept out for ever without anybody noticing."""
    assert find_spec(name) is not None


def test_no_source_names_a_path_of_one_machine() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in source_files()
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1)
        if OF_ONE_MACHINE.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("parts", [["", "work", "main"], ["", "home", "me", "x"], ["..", "shared", "style.md"]])
def test_a_path_of_one_machine_is_found_wherever_it_stands(parts: list[str]) -> None:
    path = "/".join(parts)
    assert all(OF_ONE_MACHINE.search(line) for line in (path, f"see {path}", f'"{path}"', f"`{path}`", f"FILE={path}"))


@pytest.mark.parametrize(
    "line", ["pki/work/x", "https://ca.example/home/x", "caddy/root/x", "a framework/x", "/v1/work", "/home/ada/x"]
)
def test_a_path_of_the_api_or_of_an_example_is_none_of_a_machine(line: str) -> None:
    assert OF_ONE_MACHINE.search(line) is None
