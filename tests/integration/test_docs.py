"""docs/protocol.md holds what it says: its examples run and print what it shows, and its tables are the code's."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

import pytest
from msgspec import structs

from hub.api.registry import VERBS
from hub.errors import ERRORS
from hub.model import RESERVED_EVENTS
from hub.settings import Settings
from tests.support.pages import Block, cells, sections
from tests.support.program import Program
from tests.support.times import SOON
from tests.support.tools import ROOT, node, node_modules

PAGE = (ROOT / "docs" / "protocol.md").read_text()
SECTIONS = sections(PAGE)
# The section whose blocks begin every example of their language.
BEGINNINGS = "How to read the examples"
LANGUAGES = ("js", "python")
# Where the page's hub listens.
ADDRESS = "http://127.0.0.1:8000"
EVENTS = ("A message", "`hub:session`", "`hub:gap`", "`hub:closing`")


@dataclass(frozen=True)
class Example:
    """A program of the page, what it prints, and the settings of its hub where they are not the default."""

    section: str
    code: Block
    output: list[str]
    settings: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.section.strip('`')}-{self.code.language}"


def examples() -> list[Example]:
    """Return every program of the page; what it prints stands in the next block of text of its section."""
    found = []
    for section in SECTIONS:
        settings = re.findall(r"`HUB_([A-Z_]+)=([^`]+)`", "\n".join(section.prose))
        given = tuple((name.lower(), value) for name, value in settings)
        for number, block in enumerate(section.blocks):
            if block.language != "text" and section.title != BEGINNINGS:
                outputs = [other for other in section.blocks[number:] if other.language == "text"]
                output = outputs[0].lines if outputs else []
                found.append(Example(section.title, block, output, given))
    return found


EXAMPLES = examples()
[_beginnings] = [section for section in SECTIONS if section.title == BEGINNINGS]
BEGINNING = {block.language: block.text for block in _beginnings.blocks}


async def run_js(example: Example, url: str, directory: Path) -> list[str]:
    """Run a module in Node with the stock client beside it; return what it prints."""
    (directory / "node_modules").symlink_to(node_modules())
    program = directory / "example.mjs"
    program.write_text(BEGINNING["js"] + example.code.text.replace(ADDRESS, url))
    async with Program(node(), str(program)) as running:
        assert await running.ends() == 0, running.lines
        return running.lines


async def run_python(example: Example, url: str) -> list[str]:
    """Run the body of a coroutine in this process, as its imports take longer than all of them; return what it prints."""
    names: dict[str, object] = {"__name__": "example"}
    exec(BEGINNING["python"], names)
    # So that a traceback names the page's lines.
    source = "\n" * example.code.line + example.code.text.replace(ADDRESS, url)
    page, flag = str(ROOT / "docs" / "protocol.md"), ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, page, "exec", flags=flag)
    assert code.co_flags & inspect.CO_COROUTINE
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        async with asyncio.timeout(2 * SOON):
            await FunctionType(code, names)()
    return printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def hub_with(start_hub):
    """Return the one hub that has these settings, each under a prefix of its own."""
    hubs = {}

    def get(settings):
        if settings not in hubs:
            hubs[settings] = start_hub(prefix=f"docs{len(hubs)}", **dict(settings))
        return hubs[settings]

    return get


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
async def test_an_example_prints_what_the_page_shows(example, hub_with, tmp_path):
    hub = await asyncio.to_thread(hub_with, example.settings)
    if example.code.language == "js":
        printed = await run_js(example, hub.url, tmp_path)
    else:
        printed = await run_python(example, hub.url)
    assert printed == example.output


def test_no_example_is_left_out():
    """Every block is an example, the beginning of all, or the output of one; and every example has an output."""
    fences = re.findall(r"^\s*(?:```|~~~) *(\w+)", PAGE, re.MULTILINE)
    assert len(BEGINNING) == len(LANGUAGES)
    assert sorted(fences) == sorted(
        [block.language for section in SECTIONS for block in section.blocks]
    )
    assert {*fences} == {*LANGUAGES, "text"}
    assert len(EXAMPLES) == len(fences) - len(BEGINNING) - fences.count("text")
    assert [str(example) for example in EXAMPLES if not example.output] == []
    assert all(ADDRESS in example.code.text for example in EXAMPLES)


def test_each_verb_and_each_event_has_both_examples():
    shown = [(example.section, example.code.language) for example in EXAMPLES]
    wanted = [*EVENTS, *(f"`{verb}`" for verb in VERBS)]
    assert [pair for pair in shown if pair[0] in wanted] == [
        (section, language) for section in wanted for language in LANGUAGES
    ]


def test_the_table_of_verbs_is_the_codes():
    """It has the fields of the request types, in their order, with their defaults."""
    table = PAGE.partition("<!-- verbs: begin -->")[2].partition("<!-- verbs: end -->")[0]
    verb, found = "", []
    for name, field, _, default, _ in cells(table)[1:]:
        verb = name or verb
        found.append((verb, field, default))
    assert found == [
        (name, field.name, default_of(field))
        for name, verb in VERBS.items()
        for field in structs.fields(verb.request)
    ]


def default_of(field: structs.FieldInfo) -> str:
    """Return a field's default as the table has it."""
    if field.required:
        return "required"
    return "none" if field.default is None else json.dumps(field.default)


def test_the_names_are_the_codes():
    """The error codes, the reserved events and the settings that the page names."""
    errors = {code: retryable for code, retryable, _ in cells(text_of("Errors"))[1:]}
    assert errors == {code: "yes" if kind.retryable else "no" for code, kind in ERRORS.items()}
    for event in RESERVED_EVENTS:
        assert f"`{event}`" in text_of("Names and data that are refused")
    settings = {name.lower() for name in re.findall(r"`HUB_([A-Z_]+)", PAGE)}
    assert settings <= {*Settings.__struct_fields__}


def text_of(title: str) -> str:
    [section] = [section for section in SECTIONS if section.title == title]
    return "\n".join(section.prose)


def test_every_section_that_is_cited_is_there():
    """Code and tests cite the page as `PROTOCOL §4`."""
    files = [file for part in ("hub", "tests") for file in (ROOT / part).rglob("*.py")]
    cited = {
        number for file in files for number in re.findall(r"PROTOCOL §(\d+)", file.read_text())
    }
    numbered = [section.title.partition(".")[0] for section in SECTIONS]
    assert cited
    assert cited <= {*numbered}
