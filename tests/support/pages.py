"""Reads a page of the documentation: its sections, and the blocks of code and output in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.tools import ROOT

# All public pages.
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_HEADING = re.compile(r"#+ (.+)")
# Whatever a reader of Markdown takes for a fence.
_FENCE = re.compile(r"\s*(?:```|~~~)")
# The one form that the pages use: three backticks at the margin, and what language follows.
_OUR_FENCE = re.compile(r"```(\w*)")


@dataclass(frozen=True)
class Block:
    """What stands between two fences; `line` is the line of the first fence."""

    language: str
    text: str
    line: int

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


@dataclass
class Section:
    """A heading, the lines of prose below it, and the blocks among them, down to the next heading of any level."""

    title: str
    prose: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


def sections(page: str) -> list[Section]:
    """Return the sections of a page in order; what stands before the first heading has no title.

    Raises ValueError for a fence of another form than the pages use, and for one that is not closed.
    """
    found = [Section("")]
    lines = iter(enumerate(page.splitlines(), 1))
    for number, line in lines:
        if _FENCE.match(line):
            fence = _OUR_FENCE.fullmatch(line)
            if fence is None:
                raise ValueError(f"line {number}: {line!r} is no fence that the pages use")
            found[-1].blocks.append(Block(fence[1], _until_fence(lines, number), number))
        elif heading := _HEADING.fullmatch(line):
            found.append(Section(heading[1]))
        else:
            found[-1].prose.append(line)
    return found


def blocks(page: str) -> list[Block]:
    """Return all blocks of a page in order."""
    return [block for section in sections(page) for block in section.blocks]


def prose(page: str) -> str:
    """Return a page without its blocks."""
    return "\n".join(line for section in sections(page) for line in section.prose)


def cells(table: str) -> list[list[str]]:
    """Return the rows of a table, the head first, without the marks of code around a cell."""
    return [
        [cell.strip().strip("`") for cell in row.strip("|").split("|")]
        for row in table.splitlines()
        if row.startswith("|") and not row.startswith("| ---")
    ]


def _until_fence(lines: Iterator[tuple[int, str]], opened: int) -> str:
    inside = []
    for _, line in lines:
        if line == "```":
            return "".join(f"{each}\n" for each in inside)
        inside.append(line)
    raise ValueError(f"line {opened}: the fence is not closed")
