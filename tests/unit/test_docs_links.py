"""Every link in the public pages leads to a file that exists and, where it names one, to a heading of that page."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.walk.rules import RULES
from tests.support.pages import PAGES
from tests.support.tools import ROOT

DOCS = ROOT / "docs"

_FENCE = re.compile(r"^ *(```+|~~~+).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?:(?!\1).)+\1")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#* *$", re.MULTILINE)
# [text](target) and ![text](target), with or without a title.
_LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?: +\"[^\"]*\")?\)")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def links(page: Path) -> list[str]:
    """Return the targets of a page's links, code left out."""
    return _LINK.findall(_CODE.sub("", _FENCE.sub("", page.read_text())))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: Counter[str] = Counter()
    names = set()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text())):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        names.add(f"{anchor}-{found[anchor]}" if found[anchor] else anchor)
        found[anchor] += 1
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """No relative link names a file or a heading that is not there."""
    broken = []
    for target in links(page):
        if _ELSEWHERE.match(target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    """A reader who starts at the README finds each page."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.exists() or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [
            (page.parent / target.partition("#")[0]).resolve()
            for target in links(page)
            if not _ELSEWHERE.match(target) and not target.startswith("#")
        ]
    assert sorted(set(PAGES) - reached) == []


def test_every_rule_is_explained_once() -> None:
    """The tables of docs/replay.md name exactly the rules that the tests can switch off."""
    text = (DOCS / "replay.md").read_text().partition("\n## The rules\n")[2]
    rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(RULES)
