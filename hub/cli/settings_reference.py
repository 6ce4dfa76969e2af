"""The meaning, unit, default and bounds of each setting, for `hub serve --help`, `hub settings` and the docs."""

from __future__ import annotations

import functools
import inspect
import re
from typing import NamedTuple, get_args, get_type_hints

import msgspec.inspect as types

from hub.field_docs import field_docs
from hub.settings import GIB, HOUR, KIB, MIB, TIB, YEAR, Settings

# Larger units by their size, in which a number is shown, too: in the first one that divides it. Times below a minute
# have none.
_SIZES = {TIB: "TiB", GIB: "GiB", MIB: "MiB", KIB: "KiB", 10**9: "GB", 10**6: "MB", 1000: "kB"}
_TIMES = {int(YEAR): "years", int(HOUR): "h", 60: "min"}
_LARGER_UNITS = {"bytes": _SIZES, "seconds": _TIMES}
# A section's heading in the source of Settings, and its first field.
_SECTION = re.compile(r"^ +# -- (.+)\n\s+(\w+):", re.MULTILINE)


class Setting(NamedTuple):
    """One field of Settings."""

    name: str
    default: object
    type: types.Type
    # The possible values, in the order of the source, where the type lists them.
    choices: tuple[str, ...] = ()
    # Of a number; otherwise empty.
    unit: str = ""
    # The bounds as a sentence whose subject is the setting (`it …`), where the type does not state them.
    rule: str = ""

    @property
    def variable(self) -> str:
        return f"HUB_{self.name.upper()}"

    @property
    def section(self) -> str:
        """Return the heading of its section."""
        return _settings_source().sections[self.name]

    @property
    def description(self) -> str:
        """Return a few sentences: what it does, and what happens at its bound."""
        return _settings_source().descriptions[self.name]

    @property
    def default_text(self) -> str:
        return self.text(self.default) or "empty"

    @property
    def bounds(self) -> str:
        """Return in words which values it may have; empty if any."""
        match self.type:
            case types.IntType(ge=int(low), le=int(high)):
                return f"{self.text(low)} to {self.text(high)}"
            case types.FloatType(ge=float() | int() as low, le=float() | int() as high):
                return f"{self.text(low)} to {self.text(high)}"
            case types.FloatType(gt=float() | int() as low, le=float() | int() as high):
                return f"more than {self.text(low)}, at most {self.text(high)}"
            case types.BoolType():
                return "true or false"
            case types.LiteralType():
                return f"one of {', '.join(self.choices)}"
            case _:
                return self.rule

    @property
    def takes(self) -> str:
        """Return the sentence that says which values it takes; its subject is the setting."""
        if self.rule:
            return self.rule
        match self.type:
            case types.IntType():
                kind = "a whole number"
            case types.FloatType():
                kind = "a number"
            case _:
                return f"it takes {self.bounds or 'a text'}"
        return f"it takes {kind}{f' of {self.unit}' if self.unit else ''}, {self.bounds}"

    def text(self, value: object) -> str:
        """Return a value as it is written in a variable, then in parentheses in a larger unit."""
        text = variable_text(value)
        for size, unit in _LARGER_UNITS.get(self.unit, {}).items():
            if isinstance(value, int | float) and value and value % size == 0:
                return f"{text} ({int(value // size)} {unit})"
        return text


def variable_text(value: object) -> str:
    """Return a setting's value as it is written in a variable."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _settings() -> dict[str, Setting]:
    info, hints = types.type_info(Settings), get_type_hints(Settings)
    assert isinstance(info, types.StructType)
    found = {}
    for field in info.fields:
        match field.type:
            case types.Metadata(type=kind, extra=dict(extra)):
                setting = Setting(field.name, field.default, kind, **extra)
            case types.LiteralType() as kind:
                choices = get_args(hints[field.name])
                rule = f"it is one of {', '.join(choices)}"
                setting = Setting(field.name, field.default, kind, choices, rule=rule)
            case kind:
                setting = Setting(field.name, field.default, kind)
        found[field.name] = setting
    return found


class _SettingsSource(NamedTuple):
    """What only the source of Settings has: by field, the section and the explanation."""

    sections: dict[str, str]
    descriptions: dict[str, str]


@functools.cache
def _settings_source() -> _SettingsSource:
    """Read the source of Settings. Raises OSError where only compiled modules are installed."""
    source = inspect.getsource(Settings)
    begins = {name: title for title, name in _SECTION.findall(source)}
    title, sections = "", {}
    for name in Settings.__struct_fields__:
        sections[name] = title = begins.get(name, title)
    return _SettingsSource(sections, field_docs(Settings))


# By field name, in the order of the source.
SETTINGS = _settings()
