# SPDX-License-Identifier: MIT
"""The command group, and how errors become one line and an exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback

import click

from nervcodec import __version__
from nervcodec.cli.decode import decode
from nervcodec.cli.encode import encode
from nervcodec.cli.eval import evaluate
from nervcodec.cli.info import info
from nervcodec.cli.presets import presets
from nervcodec.cli.search import search
from nervcodec.cli.verify import verify
from nervcodec.errors import NervError

FAILED, INTERRUPTED = 1, 130


class _Group(click.Group):
    """Turns errors into one line on stderr and the promised exit status."""

    def invoke(self, ctx: click.Context) -> object:
        ctx.ensure_object(dict)
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("nervcodec: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader of our output went away, as `| head` does. Nothing is wrong, and nothing can be written.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(FAILED)
        except Exception as error:
            if ctx.obj.get("debug"):
                traceback.print_exc()
            elif isinstance(error, NervError):
                click.echo(f"nervcodec: {one_line(str(error))}", err=True)
            elif isinstance(error, MemoryError) or "not enough memory" in str(error):
                click.echo("nervcodec: out of memory; try a smaller --scale or --segment", err=True)
            else:
                kind = type(error).__name__
                click.echo(f"nervcodec: internal error: {kind}: {one_line(str(error))} (--debug shows where)", err=True)
            ctx.exit(FAILED)


def one_line(text: str) -> str:
    """The text without line breaks and without control characters that would reach a terminal."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def _terminated(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nervcodec")
def cli() -> None:
    """Turn a video into one small neural network, decode it, and search it.

    \b
    nervcodec encode Kitchen.mp4 -o kitchen.nerv --time 3m
    nervcodec decode kitchen.nerv
    nervcodec search "sink" kitchen.nerv
    """
    signal.signal(signal.SIGTERM, _terminated)


for _command in (encode, decode, search, evaluate, info, verify, presets):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the console script."""
    cli(prog_name="nervcodec")
