"""The command line `hub`: its commands, its exit status, and the sentences in which it reports errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

import hub
from hub.cli.config import show_settings
from hub.cli.serve import serve_command
from hub.errors import HubError


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `hub serve`, then open the address that it prints.",
)
@click.version_option(hub.__version__, "--version", prog_name="hub", message="%(prog)s %(version)s")
def cli() -> None:
    """Socket.IO Hub: a realtime pub/sub hub whose clients get what they missed."""


cli.add_command(serve_command)
cli.add_command(show_settings)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit. Status: 0 done, 1 the hub cannot run, 2 wrong usage, 130 interrupted."""
    _open_standard_files()
    try:
        status = cli.main(args, prog_name="hub", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.UsageError as error:
        _fail(error.format_message(), 2)
    except click.Abort:
        sys.exit(130)
    except HubError as error:
        _fail(error.message, 1)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def _open_standard_files() -> None:
    """Open the null device as standard input, output or error where the hub was started without (`hub serve >&-`).

    The next file or connection that is opened would get its number otherwise, and what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(opened, True)


def _fail(sentence: str, status: int) -> None:
    click.echo(f"hub: {sentence}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
