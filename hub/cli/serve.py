"""The command `hub serve`."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from typing import Any

import click
from click.core import ParameterSource

import hub
from hub.cli.config import read_settings, unknown_variables
from hub.cli.serve_options import SERVE_OPTIONS, OptionSpec
from hub.errors import HubError
from hub.runtime import logs
from hub.settings import Settings

log = logging.getLogger("hub.cli")

log = logging.getLogger("hub.cli")

SERVE_HELP = """Serve the hub until it is stopped (SIGTERM or Ctrl-C).

The messages of a room reach every subscriber in one order. A client that reconnects receives what it missed. Once
the hub accepts connections, it prints its address in one line on standard output. Logs go to standard error.
"""
SERVE_EPILOG = """\b
Examples:
  hub serve
  hub serve --port 9000 --data-dir /var/lib/hub
  hub serve --host 0.0.0.0 --redis-url redis://localhost:6379/0
  HUB_CORS=https://example.org hub serve

An option wins over its variable, a variable over the default. `hub settings` lists all settings,
also those that have only a variable."""


class ServeCommand(click.Command):
    """Lists the options in its help under the headings of their settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings = {spec.field: spec.setting.section for spec in SERVE_OPTIONS}
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if (row := param.get_help_record(ctx)) is not None:
                sections.setdefault(headings.get(param.name or "", "Help"), []).append(row)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=26)


class ServeOption(click.Option):
    """An option whose help ends with its variable and its default."""

    def __init__(self, spec: OptionSpec) -> None:
        super().__init__(
            [spec.name, *spec.former],
            # A text: `read_settings` says what a setting takes, of an option as of a variable.
            type=click.STRING,
            metavar=spec.metavar or spec.setting.unit.upper() or "|".join(spec.setting.choices),
            multiple=spec.repeated,
        )
        self.spec = spec

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        default = self.spec.shown_default or self.spec.setting.default_text
        name = f"{self.spec.name} {self.make_metavar(ctx)}"
        return name, f"{self.spec.help}  [{self.spec.variable}; default: {default}]"


def run_hub(**options: Any) -> int:
    """Run the hub with the settings of the options and variables; return the exit status."""
    context = click.get_current_context()
    given = {
        field: ",".join(value) if isinstance(value, tuple) else value
        for field, value in options.items()
        if context.get_parameter_source(field) is ParameterSource.COMMANDLINE
    }
    settings = read_settings(os.environ, given)
    logs.setup(settings.log_level, settings.log_format)
    for sentence in unknown_variables(os.environ):
        log.warning("%s", sentence)
    # Messages make no reference cycles. By default Python looks for cycles after every 700 new objects, which took 6 %
    # of the time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)

    try:
        return _serve(settings)
    except HubError as error:
        if settings.log_format == "text":
            raise
        log.error("%s", error.message)
        return 1


def _serve(settings: Settings) -> int:
    """Run the hub; return the exit status. Raises HubError where it cannot run."""
    from hub.runtime import process  # its imports take long, and --help does not need them

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(process.serve(settings, announce=print_address))


serve_command = ServeCommand(
    "serve",
    callback=run_hub,
    params=[ServeOption(spec) for spec in SERVE_OPTIONS],
    help=SERVE_HELP,
    epilog=SERVE_EPILOG,
)


def print_address(url: str) -> None:
    """Print in one line on standard output where the hub listens; if that is impossible, log it."""
    line = f"Socket.IO Hub {hub.__version__} listening on {url}"
    try:
        click.echo(line)
    except OSError as error:  # its reader has gone, or its disk is full
        log.warning("standard output cannot be written", extra={"error": error, "line": line})
        # Python would try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _loop_factory() -> Any:
    """Return what makes uvloop's event loop if that is installed, otherwise None: asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
