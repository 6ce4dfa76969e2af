"""Writes the pages of docs/, or the parts of them, that are made from the code: `make docs`."""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import msgspec.inspect as types

from hub.api.limits import Cost
from hub.api.registry import VERBS
from hub.cli.serve_options import SERVE_OPTIONS
from hub.cli.settings_reference import SETTINGS, Setting
from hub.field_docs import field_docs

DOCS = Path(__file__).parent

SETTINGS_INTRODUCTION = """\
<!-- Made from hub/settings.py by `make docs`. -->

# Settings

Each setting is an environment variable. The most used ones are options of `hub serve`, too. An option overrides its
variable, and a variable overrides the default. A variable that is set but empty counts as not set. `hub settings` prints
all settings that are in effect. Its output is an environment file that explains each setting and hides a Redis password.

Write a number without its unit. If a value is outside its bounds, the hub does not start and names the setting.
1 KiB is 1,024 bytes, 1 MiB is 1,024 KiB, and 1 MB is a million bytes. The [glossary](glossary.md) explains words such as
*session*, *inbox*, *verb*, *park* and *lease*.
"""


def settings_page(_: str) -> str:
    """Return docs/settings.md, of which nothing is written by hand."""
    contents, body = "", ""
    for section, group in itertools.groupby(SETTINGS.values(), lambda setting: setting.section):
        settings = list(group)
        links = ", ".join(f"[`{s.variable}`](#{s.variable.lower()})" for s in settings)
        anchor = section.lower().replace(" ", "-")
        contents += _wrapped(f"- [{section}](#{anchor}): {links}", "  ")
        body += f"\n## {section}\n"
        for setting in settings:
            facts = "\n".join(f"- {fact}" for fact in _facts(setting))
            body += f"\n### `{setting.variable}`\n\n{_wrapped(setting.description)}\n{facts}\n"
    return f"{SETTINGS_INTRODUCTION}\n{contents}{body}"


def _facts(setting: Setting) -> Iterator[str]:
    for option in SERVE_OPTIONS:
        if option.field == setting.name:
            yield f"Option: `{option.name}`"
    if setting.unit:
        yield f"Unit: {setting.unit}"
    value, *larger = setting.default_text.split(" ", 1) if setting.default != "" else ("",)
    yield " ".join(["Default:", f"`{value}`" if value else "empty", *larger])
    if setting.bounds:
        yield f"Bounds: {setting.bounds}"


def _wrapped(text: str, indent: str = "") -> str:
    """Return a paragraph in lines of the docs' length."""
    lines = textwrap.wrap(
        text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines) + "\n"


def protocol_page(page: str) -> str:
    """Return docs/protocol.md with its table of verbs made anew."""
    before, begin, rest = page.partition("<!-- verbs: begin -->\n")
    _, end, after = rest.partition("<!-- verbs: end -->\n")
    return f"{before}{begin}{verbs_table()}{end}{after}"


def verbs_table() -> str:
    """Return the fields of all verbs, and what each verb counts as."""
    table = "\n| verb | field | type | default | meaning |\n| --- | --- | --- | --- | --- |\n"
    for verb in VERBS.values():
        name, meanings = f"`{verb.name}` ", field_docs(verb.request)
        for field in msgspec.structs.fields(verb.request):
            shape, default = _shape(field), _default(field)
            table += f"| {name}| `{field.name}` | {shape} | {default} | {meanings[field.name]} |\n"
            name = ""
    counted = {cost: _listed(v.name for v in VERBS.values() if v.cost is cost) for cost in Cost}
    table += "\n" + _wrapped(
        f"{counted[Cost.STREAMED]} count as publishes and acks (`HUB_PUBLISHES_PER_SECOND`), "
        f"{counted[Cost.SINGLE]} as other verbs (`HUB_VERBS_PER_SECOND`)."
    )
    return table + "\n"


def _shape(field: msgspec.structs.FieldInfo) -> str:
    """Return a field's type and bounds in words."""
    kind: Any = types.type_info(field.type)
    if isinstance(kind, types.UnionType):
        kind = next(each for each in kind.types if not isinstance(each, types.NoneType))
    match kind:
        case types.Metadata(extra={"shape": str(words)}):
            return words
        case types.IntType(ge=int(low), le=int(high)):
            return f"integer, {low} to {high}"
        case types.BoolType():
            return "boolean"
    raise TypeError(f"{field.name}: the reference has no words for {kind}")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default is None:
        return "none"
    text = json.dumps(field.default)
    return f"`{text}`" if isinstance(field.default, bool) else text


def _listed(names: Iterable[str]) -> str:
    *first, last = [f"`{name}`" for name in names]
    return f"{', '.join(first)} and {last}" if first else last


# What is generated: a file, and what makes its new text from the one that it has.
GENERATED: dict[Path, Callable[[str], str]] = {
    DOCS / "settings.md": settings_page,
    DOCS / "protocol.md": protocol_page,
}


def main() -> None:
    for page, generate in GENERATED.items():
        page.write_text(generate(page.read_text() if page.exists() else ""))


if __name__ == "__main__":
    main()
