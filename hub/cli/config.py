"""Reads the settings from options and environment variables; `hub settings` lists them."""

from __future__ import annotations

import difflib
import itertools
import os
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
# The beginnings of msgspec's own words about a value.
MSGSPEC_WORDS = ("Expected ", "Invalid ", "Number ")
# Variables with these beginnings are no misspelt settings: the tests use some, and Kubernetes sets the others for the pods
# beside a service that is called `hub`.
OTHERS_PREFIXES = ("HUB_TEST_", "HUB_SERVICE_", "HUB_PORT_")
KUBERNETES = (
    " (Kubernetes sets this variable for a service called hub: set enableServiceLinks to false)"
)
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
        # What msgspec says of a type or a bound is replaced by what the setting takes.
        why = SETTINGS[field].takes if what.startswith(MSGSPEC_WORDS) else what
        if field == "port" and variables.get("HUB_PORT", "").startswith("tcp://"):
            why += KUBERNETES
        raise click.UsageError(invalid(_given_name(field, given, variables), why)) from None
    if chosen.redis_url and urlsplit(chosen.redis_url).scheme not in SCHEMES:
        why = SETTINGS["redis_url"].rule
        raise click.UsageError(invalid(_given_name("redis_url", given, variables), why))
    return chosen


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence about each variable that looks like a setting and is none."""
    known = {setting.variable for setting in SETTINGS.values()} | settings.FORMER_VARIABLES.keys()
    for name in sorted(environ):
        upper = name.upper()
        if name in known or not upper.startswith("HUB_") or upper.startswith(OTHERS_PREFIXES):
            continue
        close = difflib.get_close_matches(upper, known, 1)
        hint = f"did you mean {close[0]}?" if close else "`hub settings` lists all."
        yield f"{name} is no setting of the hub, and is ignored: {hint}"


def _given_name(field: str, given: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    """Return the name of the option or variable that gave a setting."""
    if field in given:
        return f"--{field.replace('_', '-')}"
    names = (
        SETTINGS[field].variable,
        *(n for n, f in settings.FORMER_VARIABLES.items() if f == field),
    )
    return next((name for name in names if name in variables), names[0])


def invalid(name: str, why: str) -> str:
    """Return the sentence that an option or variable has a wrong value."""
    return f"Invalid value for {name}: {why.rstrip('.')}."


@click.command("settings")
def show_settings() -> None:
    """List every setting in effect, explained, as an environment file."""
    chosen = read_settings(os.environ, {})
    for sentence in unknown_variables(os.environ):
        click.echo(f"hub: {sentence}", err=True)
    for section, group in itertools.groupby(SETTINGS.values(), lambda setting: setting.section):
        click.echo(f"# ---- {section}\n")
        for setting in group:
            value = getattr(chosen, setting.name)
            shown = settings.without_password(value) if setting.name == "redis_url" else value
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
