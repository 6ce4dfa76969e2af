"""Switches rules of the product off. Each line in hub/ that keeps a rule ends with the rule's marker:

    self.sent = message.offset  # rule: sent_filter         in Lua: -- rule: sent_filter

A line that keeps several rules names all of them: `# rule: a, b`. A rule whose lines change in different ways numbers
them: `# rule: a/1`, `# rule: a/2`. A switch says what its marked lines become while the rule is off. In which module,
class or function they are is found here, so that moving or renaming those changes no switch.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import io
import keyword
import re
import tokenize
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import hub
from hub.store.scripts import Script

HUB = Path(hub.__file__).parent

_MARKER = re.compile(r"\s*(?:#|--) rule: ([a-z_0-9/, ]+)$")
# What may be a marker that is not written as one.
_LIKE_ONE = re.compile(r"(?:#|--)\s*rules?\s*:", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d]\w*")
_STRING = re.compile(r"'[^']*'|\"[^\"]*\"")
_LUA = {"and", "do", "else", "end", "false", "if", "local", "nil", "not", "or", "return", "then", "true"}  # fmt: skip


class BadSwitch(Exception):
    """A switch and the product do not fit together."""


class Source:
    """The lines of a file or a script, without their markers; and the numbers of the lines that each marker is on."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.lines: list[str] = []
        self.marked: dict[str, list[int]] = {}
        for at, line in enumerate(text.split("\n")):
            found = _MARKER.search(line)
            code = line[: found.start()] if found else line
            if _LIKE_ONE.search(code) or (found and not code):
                raise BadSwitch(
                    f"{name}:{at + 1} has a marker that is not at the end of a line of code"
                )
            self.lines.append(code)
            for marker in found[1].split(", ") if found else ():
                self.marked.setdefault(marker, []).append(at)

    @property
    def is_lua(self) -> bool:
        return not self.name.endswith(".py")

    @functools.cached_property
    def words(self) -> set[str]:
        """All names and keywords of the code, those of its comments not."""
        if self.is_lua:
            return {*_WORD.findall(re.sub("--.*", "", self.text)), *_LUA}
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {*(token.string for token in tokens if token.type == tokenize.NAME), *keyword.kwlist}

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def change(self, at: int, code: str) -> None:
        """Let a line be another one. It may bring no words that the file does not know: one of them was renamed."""
        if unknown := set(_WORD.findall(_STRING.sub("", code))) - self.words:
            raise BadSwitch(
                f"{self.name} does not know {', '.join(sorted(unknown))} in: {code.strip()}"
            )
        if code == self.lines[at]:
            raise BadSwitch(f"{self.name}:{at + 1} stays what it was: {code.strip()}")
        self.lines[at] = code

    def drop(self, at: int) -> None:
        """Take a line away: in Python the statement that ends with it, or the one of several conditions that it is."""
        if self.is_lua:
            self.change(at, "")
        elif (first := self._statement(at)) is not None:
            indent = _indent(self.lines[first])
            self.lines[first : at + 1] = [indent + "pass", *[""] * (at - first)]
        else:
            segment, neutral = self._operand(at)
            self.change(at, self.lines[at].replace(segment, neutral))

    def _statement(self, at: int) -> int | None:
        """Return where the innermost statement that ends in a line begins."""
        starts = [
            node.lineno - 1
            for node in ast.walk(self.tree)
            if isinstance(node, ast.stmt) and node.end_lineno == at + 1
        ]
        return max(starts, default=None)

    def _operand(self, at: int) -> tuple[str, str]:
        """Return the operand of `and` or `or` that has a line for itself, and what makes no difference in its place."""
        alone = re.sub(r"^(and|or) ", "", self.lines[at].strip())
        for node in ast.walk(self.tree):
            if isinstance(node, ast.BoolOp):
                for operand in node.values:
                    if (
                        operand.lineno == at + 1
                        and ast.get_source_segment(self.text, operand) == alone
                    ):
                        return alone, str(isinstance(node.op, ast.And))
        raise BadSwitch(f"{self.name}:{at + 1} is no statement's end, and no condition of its own")


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


# Changes one line of a source, given by its number.
Edit = Callable[[Source, int], None]


@dataclass(frozen=True)
class Switch:
    """What the lines with one marker become while the rule is off, and how many lines have the marker."""

    edit: Edit
    lines: int = 1


def substitute(pattern: str, by: str) -> Switch:
    """Replace the part of the line that the pattern describes; all of what it matches, once."""

    def edit(source: Source, at: int) -> None:
        code, count = re.subn(pattern, by, source.lines[at])
        if count != 1:
            raise BadSwitch(f"{source.name}:{at + 1} has {pattern} {count} times")
        source.change(at, code)

    return Switch(edit)


def _condition(value: bool) -> Switch:
    def edit(source: Source, at: int) -> None:
        said = str(value).lower() if source.is_lua else str(value)
        line = source.lines[at]
        code, count = re.subn(
            r"^(\s*(?:el|else)?(?:if|while) ).*?(:| then.*| do|)$", rf"\1{said}\2", line
        )
        if not count:
            raise BadSwitch(f"{source.name}:{at + 1} has no condition")
        source.change(at, code)

    return Switch(edit)


# The line is not there: a statement, or one of several conditions that are a line each.
DROP = Switch(Source.drop)
# The condition of the line's `if` or `while`.
ALWAYS, NEVER = _condition(True), _condition(False)
# Of `a and b` only `a`.
FIRST_CONDITION = substitute(r" and .*$", "")
# The first of two values in the place of the larger one.
FIRST_OF_MAX = substitute(r"\b(?:math\.)?max\((.*?), [\w.]+(?:\(\))?\)", r"\1")


def on(lines: int, switch: Switch) -> Switch:
    """Say that so many lines have the marker."""
    return Switch(switch.edit, lines)


def value(expression: str) -> Switch:
    """Assign or return something else."""
    return substitute(r"^(\s*return |.* = ).*$", rf"\g<1>{expression}")


def condition_and(expression: str) -> Switch:
    """Let the condition of the line's `if` be true only where something else is, too."""
    return substitute(r"(?=:$| then$)", f" and {expression}")


def prepend(code: str) -> Switch:
    """Do something before the line."""
    return substitute(r"^(\s*)", rf"\g<1>{code} ")


def append(code: str) -> Switch:
    """Do something after the line."""
    return substitute(r"$", f" {code}")


def only_if(condition: str) -> Switch:
    """Do in Lua what the line says only where something is true."""
    return substitute(r"^(\s*)(.*)$", rf"\1if {condition} then \2 end")


def move(to: str, *, after: bool) -> Switch:
    """Let a statement of one line move to another marked one of the same source, before or after it."""

    def edit(source: Source, at: int) -> None:
        there = source.marked[to][0]
        parts = [source.lines[there], source.lines[at]][:: 1 if after else -1]
        source.change(there, _indent(parts[0]) + "; ".join(part.strip() for part in parts))
        source.drop(at)

    return Switch(edit)


# The line where another one moves to.
STAY = Switch(lambda source, at: None)


class Mutation:
    """The product with switches off, by marker. `bounds`: constants of the scripts that have other values meanwhile."""

    def __init__(self, switches: dict[str, Switch] | None = None, **bounds: int) -> None:
        self.switches = switches or {}
        self.bounds = bounds

    def only(self, *markers: str) -> Mutation:
        """Return a mutation of these markers alone."""
        return Mutation({marker: self.switches[marker] for marker in markers}, **self.bounds)

    def apply(self, scripts: dict[str, Script]) -> dict[str, Script]:
        """Return the scripts as they are with the switches off."""
        self._check()
        changed = {}
        for name, script in scripts.items():
            text = self._edited(Source(name, script.text))
            for constant, number in self.bounds.items():
                text = re.sub(
                    rf"^(local {constant} =) \d+", rf"\1 {number}", text, flags=re.MULTILINE
                )
            changed[name] = Script(name, text) if text != script.text else script
        if self.bounds and changed == scripts:
            raise BadSwitch(f"no script has the constants {', '.join(self.bounds)}")
        return changed

    def patch(self) -> contextlib.ExitStack:
        """Let the product's functions in this process be as they are with the switches off, until the result is closed."""
        self._check()
        undo = contextlib.ExitStack()
        for path, markers in sources().items():
            if path.suffix == ".py" and self.switches.keys() & markers.keys():
                text = path.read_text()
                source = Source(str(path), text)
                lines = [at for marker in self.switches for at in source.marked.get(marker, ())]
                codes = dict(
                    _codes(compile(self._edited(source), str(path), "exec", dont_inherit=True))
                )
                for function in _functions(path, source.tree, lines):
                    old = function.__code__
                    undo.callback(setattr, function, "__code__", old)
                    function.__code__ = codes[old.co_qualname, old.co_firstlineno]
        return undo

    def _check(self) -> None:
        counts = marker_counts()
        for marker, switch in self.switches.items():
            if counts[marker] != switch.lines:
                raise BadSwitch(
                    f"{counts[marker]} lines of hub/ have the marker `rule: {marker}`; its switch is for {switch.lines}"
                )

    def _edited(self, source: Source) -> str:
        if not self.switches.keys() & source.marked.keys():
            return source.text
        for marker, switch in self.switches.items():
            for at in source.marked.get(marker, ()):
                switch.edit(source, at)
        return "\n".join(source.lines)


@functools.cache
def sources() -> dict[Path, dict[str, list[int]]]:
    """Return the files of the product that have markers, and the line numbers of these."""
    paths = sorted(path for path in HUB.rglob("*") if path.suffix in {".py", ".lua"})
    marked = {path: Source(str(path), path.read_text()).marked for path in paths}
    return {path: markers for path, markers in marked.items() if markers}


def marker_counts() -> Counter[str]:
    """Return how many lines of the product each marker is on."""
    counts: Counter[str] = Counter()
    for markers in sources().values():
        counts.update({marker: len(lines) for marker, lines in markers.items()})
    return counts


def _codes(module: CodeType) -> Iterable[tuple[tuple[str, int], CodeType]]:
    for each in module.co_consts:
        if isinstance(each, CodeType):
            yield (each.co_qualname, each.co_firstlineno), each
            yield from _codes(each)


def _functions(path: Path, tree: ast.Module, lines: list[int]) -> Iterable[FunctionType]:
    """Return the functions of a module, or methods of its classes, that lines are in."""
    module = importlib.import_module(".".join(path.relative_to(HUB.parent).with_suffix("").parts))
    found: dict[tuple[str, int], FunctionType] = {}
    for at in lines:
        names, inside = [], tree.body
        owner: Any = module
        while True:
            node: Any = next(
                (
                    each
                    for each in inside
                    if isinstance(each, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                    and each.lineno <= at + 1 <= (each.end_lineno or 0)
                ),
                None,
            )
            if node is None:
                raise BadSwitch(f"{path}:{at + 1} is in no function")
            names.append(node.name)
            owner = inspect.getattr_static(owner, node.name)
            if not isinstance(node, ast.ClassDef):
                break
            inside = node.body
        # What a decorator has made of it: a property, a cached one, a static or class method, a wrapper.
        for attribute in ("fget", "func", "__func__"):
            owner = getattr(owner, attribute, None) or owner
        function = inspect.unwrap(owner)
        if not isinstance(function, FunctionType) or function.__code__.co_qualname != ".".join(
            names
        ):
            raise BadSwitch(
                f"{path}:{at + 1}: {'.'.join(names)} is no function that can be replaced"
            )
        found[function.__code__.co_qualname, function.__code__.co_firstlineno] = function
    return found.values()
