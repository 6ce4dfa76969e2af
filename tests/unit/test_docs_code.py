"""What the public pages name of the code is there: functions, parts of hub/, make's targets, variables of the tests."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

from hub.settings import Settings
from tests.support.pages import PAGES, blocks, prose
from tests.support.tools import ROOT

HUB = ROOT / "hub"
# A name that links to the file that it is in: [`Rooms.fan_out`](../hub/pubsub/rooms.py).
_LINKED_NAME = re.compile(r"\[`([\w.]+)`\]\(([\w./]+\.(?:py|lua))\)")
_TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")
_VARIABLE = re.compile(r"\b(?:HUB|CHAOS)_[A-Z_]+")

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code(page: Path) -> str:
    """Return what stands as code on a page: its blocks, and what is between backticks."""
    text = page.read_text()
    return "\n".join(
        [*(block.text for block in blocks(text)), *re.findall(r"`([^`]+)`", prose(text))]
    )


@functools.cache
def defined(file: Path) -> set[str]:
    """Return the names that a module defines: `function`, `Class`, `Class.method`, and `method` alone."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    names |= {inner.name, f"{node.name}.{inner.name}"}
    return names


@by_page
def test_every_name_that_links_to_a_file_is_defined_there(page: Path) -> None:
    wrong = []
    for name, target in _LINKED_NAME.findall(page.read_text()):
        file = page.parent / target
        there = {file.name} if file.suffix == ".lua" or name == file.name else defined(file)
        if name not in there:
            wrong.append(f"{name} in {target}")
    assert wrong == []


@by_page
def test_every_target_of_make_is_one(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.* ## ", makefile, re.MULTILINE))
    assert {*_TARGET.findall(code(page))} <= targets


@by_page
def test_every_variable_is_read_by_somebody(page: Path) -> None:
    """A setting, or what the tests and the Makefile ask for."""
    sources = [ROOT / "Makefile", *(ROOT / "tests").rglob("*.py"), *(ROOT / "tests").rglob("*.cjs")]
    read = {name for file in sources for name in _VARIABLE.findall(file.read_text())}
    settings = {f"HUB_{name.upper()}" for name in Settings.__struct_fields__}
    assert {*_VARIABLE.findall(code(page))} - settings - read == set()


def test_the_architecture_names_every_part_of_the_hub() -> None:
    """Each folder and module of hub/ has its row, and nothing else has."""
    page = (ROOT / "docs/architecture.md").read_text()
    table = page.partition("| folder or module |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.+`) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([\w./]+)`", row)}
    there = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in HUB.iterdir()
        if not path.name.startswith(("_", ".")) and path.suffix in ("", ".py")
    }
    assert named == there


def test_the_architecture_has_the_layers_of_the_import_rules() -> None:
    """In their order and with their separators; those of parts that are yet to come are left out."""
    page = (ROOT / "docs/architecture.md").read_text()
    [drawn] = [block.text for block in blocks(page) if block.text.startswith("cli →")]
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = []
    for layer in rules["contracts"][0]["layers"]:
        separator = " | " if "|" in layer else " : "
        names = [name.strip(" ()").removeprefix("hub.") for name in layer.split(separator.strip())]
        there = [n for n in names if (HUB / n).is_dir() or (HUB / f"{n}.py").exists()]
        layers += [separator.join(there)] if there else []
    assert [" ".join(layer.split()) for layer in drawn.split("→")] == layers
