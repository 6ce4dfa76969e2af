"""Names mean one thing in all of hub/."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

HUB = Path(__file__).parents[2] / "hub"


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield each module's path under hub/ and its syntax tree."""
    for path in sorted(HUB.rglob("*.py")):
        yield str(path.relative_to(HUB)), ast.parse(path.read_text())


def repeated(names: Iterator[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the modules of each name that stands in `(name, module)` more than once."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, module in names:
        places[name].append(module)
    return {name: found for name, found in places.items() if len(found) > 1}


def test_every_class_name_is_defined_once():
    assert not repeated(
        (node.name, module)
        for module, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )


def test_every_public_function_of_a_module_has_a_name_of_its_own():
    """A command's function and the function that it calls have different names, too."""
    assert not repeated(
        (node.name, module)
        for module, tree in modules()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
    )


def test_no_alias_of_a_type_has_the_name_of_a_class():
    """Aliases of types are named like classes."""
    classes = {
        node.name
        for _, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    aliases = {
        target.id: module
        for module, tree in modules()
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert {name: aliases[name] for name in classes & aliases.keys()} == {}
