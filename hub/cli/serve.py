"""`hub serve`: the options of serving, and what they start."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
from typing import Any

import click
from click.core import ParameterSource
from msgspec import inspect

import hub
from hub.cli.config import load
from hub.cli.serve_options import FLAGS, Flag
from hub.cli.settings_reference import Setting
from hub.errors import Unavailable
from hub.runtime import logs

# What the system says where it does not let the hub listen.
NO_ADDRESS = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)

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
    """Shows the options under the headings of their settings, in the order of FLAGS."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings = {flag.field: flag.setting.section for flag in FLAGS}
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (row := param.get_help_record(ctx)) is not None:
                sections.setdefault(headings.get(param.name or "", "Help"), []).append(row)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=26)


class ServeOption(click.Option):
    """An option whose help ends with its variable and its default."""

    def __init__(self, flag: Flag) -> None:
        super().__init__(
            [flag.name],
            type=option_type(flag.setting),
            default=flag.setting.default,
            envvar=flag.envvar,
            metavar=flag.metavar or flag.setting.unit.upper() or None,
        )
        self.flag = flag

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        default = self.flag.shown_default or self.flag.setting.default_text
        name = f"{self.flag.name} {self.make_metavar(ctx)}"
        return name, f"{self.flag.help}  [{self.flag.envvar}; default: {default}]"


def option_type(setting: Setting) -> click.ParamType[Any]:
    """Return the option type that holds a setting's bounds as Settings states them."""
    match setting.type:
        case inspect.IntType(ge=low, le=high):
            return click.IntRange(low, high)
        case inspect.FloatType(gt=low, ge=lowest, le=highest):
            least = low if low is not None else lowest
            return click.FloatRange(least, highest, min_open=low is not None)
        case inspect.LiteralType():
            return click.Choice(setting.choices)
        case _:
            return click.STRING


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
    from hub.runtime import process  # heavy, and of no use to --help

    # Messages make no cycles: looking for some every 700 objects was 6 % of the time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(process.serve(chosen, announce=announce))
    except OSError as error:
        if error.errno in NO_ADDRESS or isinstance(error, socket.gaierror):
            why = (error.strerror or str(error)).rpartition(": ")[2]
            raise Unavailable(f"Cannot listen on {chosen.host}:{chosen.port}: {why}.") from None
        raise


serve_command = ServeCommand(
    "serve",
    callback=serve,
    params=[ServeOption(flag) for flag in FLAGS],
    help=SERVE_HELP,
    epilog=SERVE_EPILOG,
)


def announce(url: str) -> None:
    """Say on standard output, in one line, where the hub listens."""
    click.echo(f"Socket.IO Hub {hub.__version__} listening on {url}")


def _loop_factory() -> Any:
    """Return uvloop's loop where it is installed, else None: asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
