"""Reads the settings from options and variables, and lists them: `hub settings`."""

from __future__ import annotations

import itertools
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import click

from hub import settings
from hub.cli.settings_reference import SETTINGS, Setting, variable_text
from hub.errors import BadRequest

DEFAULTS = settings.Settings()
SCHEMES = ("redis", "rediss", "unix")
# Columns of the comments in `hub settings`.
WIDTH = 100


def load(environ: Mapping[str, str], given: Mapping[str, Any]) -> settings.Settings:
    """Return the settings; a variable that is set but empty counts as not set.

    So does an empty option, unless empty is what overrules a variable: an empty host would be every address there is.
    Raises UsageError with a sentence that names the option or variable.
    """
    filled = {key: value for key, value in environ.items() if value != ""}
    given = {
        key: value for key, value in given.items() if value != "" or not getattr(DEFAULTS, key)
    }
    try:
        chosen = settings.load(filled, **given)
    except BadRequest as error:
        field, _, what = error.message.partition(": ")
        if not what:
            raise click.UsageError(f"{field}.") from None
        why = SETTINGS[field].rule or what
        raise click.UsageError(invalid(_source(field, given), why)) from None
    if chosen.redis_url and urlsplit(chosen.redis_url).scheme not in SCHEMES:
        why = SETTINGS["redis_url"].rule
        raise click.UsageError(invalid(_source("redis_url", given), why))
    return chosen


def _source(field: str, given: Mapping[str, Any]) -> str:
    """Return the name under which a setting was given."""
    return f"--{field.replace('_', '-')}" if field in given else SETTINGS[field].variable


def invalid(name: str, why: str) -> str:
    return f"Invalid value for {name}: {why.rstrip('.')}."


@click.command("settings")
def show_settings() -> None:
    """List every setting in effect, explained, as an environment file."""
    chosen = load(os.environ, {})
    for section, group in itertools.groupby(SETTINGS.values(), lambda setting: setting.section):
        click.echo(f"# ---- {section}\n")
        for setting in group:
            value = getattr(chosen, setting.name)
            shown = _without_password(value) if setting.name == "redis_url" else value
            for line in _explain(setting, changed=value != setting.default):
                click.echo(f"# {line}")
            click.echo(f"{setting.variable}={variable_text(shown)}\n")


def _explain(setting: Setting, *, changed: bool) -> Iterator[str]:
    """Yield the lines that explain a setting; `changed`: its default is not in effect."""
    yield from textwrap.wrap(setting.description, WIDTH - 2, break_on_hyphens=False)
    facts = [
        setting.unit and f"unit: {setting.unit}",
        f"default: {setting.default_text}{', changed below' if changed else ''}",
        setting.bounds and f"bounds: {setting.bounds}",
    ]
    yield "; ".join(filter(None, facts))


def _without_password(url: str) -> str:
    """Return the URL with its password blotted out, before the host or in the query."""
    password = urlsplit(url).password
    url = url.replace(f":{password}@", ":***@") if password else url
    return re.sub(r"(?<=password=)[^&#]*", "***", url)
