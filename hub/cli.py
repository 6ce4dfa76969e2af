"""The command line: `hub serve` and its options, `hub settings`, one sentence for each mistake."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import click
from click.core import ParameterSource
from msgspec import inspect

import hub
from hub import logs, settings
from hub.errors import BadRequest, HubError, Unavailable
from hub.options import FLAGS, OPERATION, Flag

DEFAULTS = settings.Settings()

# What the system says where it does not let the hub listen.
NO_ADDRESS = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
SCHEMES = ("redis", "rediss", "unix")
# Rules that Settings states as a pattern or not at all, in words.
RULES = {
    "prefix": "it needs 1 to 64 characters, none of them a brace or a blank",
    "redis_url": "it begins with redis://, rediss:// or unix://",
}

SERVE_HELP = """Serve the hub until it is told to stop (SIGTERM or Ctrl-C).

Publishes into rooms reach every subscriber in one order; who was away gets what it missed. Once
connections are accepted, one line on standard output says where. Logs go to standard error.
"""
SERVE_EPILOG = """\b
Examples:
  hub serve
  hub serve --port 9000 --data-dir /var/lib/hub
  hub serve --host 0.0.0.0 --redis-url redis://localhost:6379/0
  HUB_CORS=https://example.org hub serve

An option wins over its variable, a variable over the default. `hub settings` lists the finer
settings too, which have variables only."""


class ServeCommand(click.Command):
    """Shows the options under headings, in the order of FLAGS."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups = {flag.field: flag.group for flag in FLAGS}
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (row := param.get_help_record(ctx)) is not None:
                sections.setdefault(groups.get(param.name or "", OPERATION), []).append(row)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=26)


class ServeOption(click.Option):
    """An option whose help ends with its variable and its default."""

    def __init__(self, flag: Flag) -> None:
        super().__init__(
            [flag.name],
            type=option_type(flag.field),
            default=getattr(DEFAULTS, flag.field),
            envvar=flag.envvar,
            metavar=flag.metavar,
            help=flag.help,
        )
        self.flag = flag

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        value = getattr(DEFAULTS, self.flag.field)
        default = self.flag.shown_default or _text(value)
        name = f"{self.flag.name} {self.make_metavar(ctx)}"
        return name, f"{self.flag.help}  [{self.flag.envvar}; default: {default}]"


def option_type(field: str) -> click.ParamType[Any]:
    """Return the option type that holds a field's bounds as Settings states them."""
    kinds = {f.name: f.type for f in _fields()}
    match kinds[field]:
        case inspect.IntType(ge=low, le=high):
            return click.IntRange(low, high)
        case inspect.FloatType(gt=low, ge=lowest, le=highest):
            least = low if low is not None else lowest
            return click.FloatRange(least, highest, min_open=low is not None)
        case inspect.StrType(pattern=str(pattern)) if re.fullmatch(r"\^\([a-z|]+\)\$", pattern):
            return click.Choice(pattern[2:-2].split("|"))
        case _:
            return click.STRING


def _fields() -> tuple[inspect.Field, ...]:
    info = inspect.type_info(settings.Settings)
    assert isinstance(info, inspect.StructType)
    return info.fields


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
        raise click.UsageError(_invalid(_source(field, given), RULES.get(field, what))) from None
    if chosen.redis_url and urlsplit(chosen.redis_url).scheme not in SCHEMES:
        raise click.UsageError(_invalid(_source("redis_url", given), RULES["redis_url"]))
    return chosen


def _source(field: str, given: Mapping[str, Any]) -> str:
    """Return the name under which a setting was given."""
    return f"--{field.replace('_', '-')}" if field in given else f"HUB_{field.upper()}"


def _invalid(name: str, why: str) -> str:
    return f"Invalid value for {name}: {why.rstrip('.')}."


def _sentence(error: click.UsageError) -> str:
    """Return what was wrong, naming the option or the variable, whichever held the value."""
    param, context = error.__dict__.get("param"), error.ctx
    if isinstance(param, ServeOption) and isinstance(context, click.Context):
        source = context.get_parameter_source(param.name or "")
        named = param.flag.name if source is ParameterSource.COMMANDLINE else param.flag.envvar
        if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
            return _invalid(named, error.message)
    return error.format_message()


def _text(value: object) -> str:
    """Return a setting's value as one writes it in a variable."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `hub serve`, then open the address that it prints.",
)
@click.version_option(hub.__version__, "--version", prog_name="hub", message="%(prog)s %(version)s")
def cli() -> None:
    """Socket.IO Hub: a realtime pub/sub hub whose clients get what they missed."""


def serve(**given: Any) -> None:
    """Run the hub with the options that were given; `load` reads the variables."""
    context = click.get_current_context()
    explicit = {
        name: value
        for name, value in given.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    chosen = load(os.environ, explicit)
    logs.setup(chosen.log_level)
    from hub import app  # heavy, and of no use to --help

    # Messages make no cycles: looking for some every 700 objects was 6 % of the time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(app.serve(chosen, announce=announce))
    except OSError as error:
        if error.errno in NO_ADDRESS or isinstance(error, socket.gaierror):
            why = (error.strerror or str(error)).rpartition(": ")[2]
            raise Unavailable(f"Cannot listen on {chosen.host}:{chosen.port}: {why}.") from None
        raise


cli.add_command(
    ServeCommand(
        "serve",
        callback=serve,
        params=[ServeOption(flag) for flag in FLAGS],
        help=SERVE_HELP,
        epilog=SERVE_EPILOG,
    )
)


@cli.command("settings")
def show_settings() -> None:
    """List every setting in effect, as an environment file."""
    chosen = load(os.environ, {})
    for name in settings.Settings.__struct_fields__:
        value, default = getattr(chosen, name), getattr(DEFAULTS, name)
        text = _text(_without_password(value) if name == "redis_url" else value)
        click.echo(f"HUB_{name.upper()}={text}")
        if value != default:
            click.echo(f"#   default: {_text(default) or '(empty)'}")


def announce(url: str) -> None:
    """Say on standard output, in one line, where the hub listens."""
    click.echo(f"Socket.IO Hub {hub.__version__} listening on {url}")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the hub cannot run, 2 it was asked wrongly."""
    try:
        status = cli.main(args, prog_name="hub", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.UsageError as error:
        _fail(_sentence(error), 2)
    except click.Abort:
        sys.exit(130)
    except HubError as error:
        _fail(error.message, 1)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(sentence: str, status: int) -> None:
    click.echo(f"hub: {sentence}", err=True)
    sys.exit(status)


def _loop_factory() -> Any:
    """Return uvloop's loop where it is installed, else None: asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _without_password(url: str) -> str:
    """Return the URL with its password blotted out, before the host or in the query."""
    password = urlsplit(url).password
    url = url.replace(f":{password}@", ":***@") if password else url
    return re.sub(r"(?<=password=)[^&#]*", "***", url)


if __name__ == "__main__":
    main()
