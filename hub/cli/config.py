"""Reads the settings from options and environment variables; `hub settings` lists them."""

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
# The longest line of a comment in `hub settings`, in characters.
WIDTH = 100


def read_settings(environ: Mapping[str, str], options: Mapping[str, Any]) -> settings.Settings:
    """Return the settings of `options` (fields that the command line gives) and of the variables in `environ`.

    An empty variable counts as not given. So does an empty option (an empty host would stand for every address),
    unless the default is empty, too: then the option overrules the variable. Raises UsageError with a sentence that
    names the option or variable.
    """
    variables = {name: value for name, value in environ.items() if value != ""}
    given = {
        field: value
        for field, value in options.items()
        if value != "" or not getattr(DEFAULTS, field)
    }
    try:
        chosen = settings.load(variables, **given)
    except BadRequest as error:
        field, _, what = error.message.partition(": ")
        if not what:
            raise click.UsageError(f"{field}.") from None
        why = SETTINGS[field].rule or what
        raise click.UsageError(invalid(_given_name(field, given), why)) from None
    if chosen.redis_url and urlsplit(chosen.redis_url).scheme not in SCHEMES:
        why = SETTINGS["redis_url"].rule
        raise click.UsageError(invalid(_given_name("redis_url", given), why))
    return chosen


def _given_name(field: str, given: Mapping[str, Any]) -> str:
    """Return the name of the option or variable that gave a setting."""
    return f"--{field.replace('_', '-')}" if field in given else SETTINGS[field].variable


def invalid(name: str, why: str) -> str:
    """Return the sentence that an option or variable has a wrong value."""
    return f"Invalid value for {name}: {why.rstrip('.')}."


@click.command("settings")
def show_settings() -> None:
    """List every setting in effect, explained, as an environment file."""
    chosen = read_settings(os.environ, {})
    for section, group in itertools.groupby(SETTINGS.values(), lambda setting: setting.section):
        click.echo(f"# ---- {section}\n")
        for setting in group:
            value = getattr(chosen, setting.name)
            shown = _without_password(value) if setting.name == "redis_url" else value
            for line in _explain(setting, changed=value != setting.default):
                click.echo(f"# {line}")
            click.echo(f"{setting.variable}={variable_text(shown)}\n")


def _explain(setting: Setting, *, changed: bool) -> Iterator[str]:
    """Yield the lines that explain a setting. `changed`: its value is not the default."""
    yield from textwrap.wrap(setting.description, WIDTH - 2, break_on_hyphens=False)
    facts = [
        setting.unit and f"unit: {setting.unit}",
        f"default: {setting.default_text}{', changed below' if changed else ''}",
        setting.bounds and f"bounds: {setting.bounds}",
    ]
    yield "; ".join(filter(None, facts))


def _without_password(url: str) -> str:
    """Return the URL with `***` instead of its password, which stands before the host or in the query."""
    password = urlsplit(url).password
    url = url.replace(f":{password}@", ":***@") if password else url
    return re.sub(r"(?<=password=)[^&#]*", "***", url)
