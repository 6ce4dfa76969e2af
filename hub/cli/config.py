"""Reads the settings from options and variables, and lists them: `hub settings`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import click

from hub import settings
from hub.errors import BadRequest

DEFAULTS = settings.Settings()
SCHEMES = ("redis", "rediss", "unix")
# Rules that Settings states as a pattern or not at all, in words.
RULES = {
    "prefix": "it needs 1 to 64 characters, none of them a brace or a blank",
    "redis_url": "it begins with redis://, rediss:// or unix://",
}


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
        raise click.UsageError(invalid(_source(field, given), RULES.get(field, what))) from None
    if chosen.redis_url and urlsplit(chosen.redis_url).scheme not in SCHEMES:
        raise click.UsageError(invalid(_source("redis_url", given), RULES["redis_url"]))
    return chosen


def _source(field: str, given: Mapping[str, Any]) -> str:
    """Return the name under which a setting was given."""
    return f"--{field.replace('_', '-')}" if field in given else f"HUB_{field.upper()}"


def invalid(name: str, why: str) -> str:
    return f"Invalid value for {name}: {why.rstrip('.')}."


def setting_text(value: object) -> str:
    """Return a setting's value as one writes it in a variable."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


@click.command("settings")
def show_settings() -> None:
    """List every setting in effect, as an environment file."""
    chosen = load(os.environ, {})
    for name in settings.Settings.__struct_fields__:
        value, default = getattr(chosen, name), getattr(DEFAULTS, name)
        text = setting_text(_without_password(value) if name == "redis_url" else value)
        click.echo(f"HUB_{name.upper()}={text}")
        if value != default:
            click.echo(f"#   default: {setting_text(default) or '(empty)'}")


def _without_password(url: str) -> str:
    """Return the URL with its password blotted out, before the host or in the query."""
    password = urlsplit(url).password
    url = url.replace(f":{password}@", ":***@") if password else url
    return re.sub(r"(?<=password=)[^&#]*", "***", url)
