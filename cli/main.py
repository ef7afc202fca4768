# SPDX-License-Identifier: MIT
"""The command group; errors become one line on stderr and an exit status."""

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
from nervcodec.cli.index import index
from nervcodec.cli.info import info
from nervcodec.cli.output import (
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    WRONG_USAGE,
    OutputError,
    discard,
    one_line,
    prepare,
    remark,
)
from nervcodec.cli.presets import presets
from nervcodec.cli.search import search
from nervcodec.cli.serve import serve
from nervcodec.cli.verify import verify
from nervcodec.errors import NervError, OptionsError, is_out_of_memory


class _Group(click.Group):
    """Turns errors into one line on stderr and an exit status."""

    def invoke(self, ctx: click.Context) -> object:
        ctx.ensure_object(dict)
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            raise _shortened(error) from None
        except (click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            remark("interrupted")
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader of stdout ended, as `| head` does.
            discard(sys.stdout)
            ctx.exit(BROKEN_PIPE)
        except Exception as error:
            if isinstance(error, OutputError):
                discard(sys.stdout)
            if ctx.obj.get("debug"):
                traceback.print_exc()
            elif isinstance(error, NervError):
                remark(str(error))
            elif is_out_of_memory(error):
                remark("out of memory; try a smaller --scale or --segment")
            else:
                remark(f"internal error: {type(error).__name__}: {error} (--debug shows where)")
            ctx.exit(WRONG_USAGE if isinstance(error, OptionsError) else FAILED)


def _shortened(error: click.ClickException) -> click.ClickException:
    """The same error with a message of one line, also where it quotes long words of the command line."""
    message = error.format_message()
    line = one_line(message)
    if line == message:
        return error
    shorter = click.UsageError(line, error.ctx) if isinstance(error, click.UsageError) else click.ClickException(line)
    shorter.exit_code = error.exit_code  # type: ignore[misc]  # click reads it from the error itself
    return shorter


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


for _command in (encode, decode, search, serve, index, evaluate, info, verify, presets):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the console script."""
    prepare()
    try:
        cli(prog_name="nervcodec")
    except OutputError as error:  # from --help and --version, which click runs before any command
        discard(sys.stdout)
        remark(str(error))
        sys.exit(FAILED)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            with contextlib.suppress(OutputError):
                sys.stdout.flush()
            os._exit(INTERRUPTED)  # a normal exit would wait for SVT-AV1 to code the frames in its queue
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # nothing is left to interrupt
            signal.signal(number, signal.SIG_IGN)
