# SPDX-License-Identifier: MIT
"""The ffmpeg binary: its path and version, one run of it, and its errors in one line."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from functools import cache

from nervcodec.errors import VideoError

_VARIABLE = "IMAGEIO_FFMPEG_EXE"
_ANSWERS_IN_S = 20.0
_REPEATED = "Last message repeated"
# Messages that follow the one with the cause.
_VAGUE = (
    "Conversion failed", "Error opening output", "Terminating thread", "Task finished", "Error submitting a packet",
    "Error muxing a packet", "Could not write header",
)  # fmt: skip
_LACKS = re.compile(r"Unknown (encoder|decoder)|No such filter|Requested output format .* is not known", re.IGNORECASE)


def executable() -> str:
    """imageio-ffmpeg's binary, or the one named by ``IMAGEIO_FFMPEG_EXE``.

    Raises:
        VideoError: there is none for this platform, or it cannot be run, is no ffmpeg, or is too old.
    """
    return _checked(os.environ.get(_VARIABLE))[0]


def described() -> str:
    """The binary with its version, for messages."""
    path, version = _checked(os.environ.get(_VARIABLE))
    return f"{path} (ffmpeg {version})"


@cache
def _checked(chosen: str | None) -> tuple[str, str]:
    """(path, version) of the ffmpeg to use, where ``chosen`` is the value of the variable."""
    import imageio_ffmpeg

    try:
        path = chosen or imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise VideoError(f"no ffmpeg binary: {error}; name one in {_VARIABLE}") from None
    remedy = f"{_VARIABLE} names it" if chosen else f"name another in {_VARIABLE}"
    try:
        done = subprocess.run(
            [path, "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_ANSWERS_IN_S, check=False
        )
    except OSError as error:
        raise VideoError(f"{path}: cannot be run as ffmpeg ({error.strerror or error}); {remedy}") from None
    except subprocess.TimeoutExpired:
        raise VideoError(f"{path}: does not answer as ffmpeg does; {remedy}") from None
    if not (match := re.match(r"ffmpeg version (\S+)", done.stdout.decode("utf-8", "replace"))):
        raise VideoError(f"{path}: is no ffmpeg; {remedy}")
    return path, match[1]


@cache
def has_filter(name: str) -> bool:
    """Whether the binary has a filter.

    Raises:
        VideoError: there is no ffmpeg that can be run.
    """
    command = [executable(), "-hide_banner", "-filters"]
    listed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).stdout
    return f" {name} ".encode() in listed


class Process:
    """One run of ffmpeg that reads standard input. Leaving its ``with`` block ends it.

    Args:
        arguments: after quiet defaults; only errors are logged.
        level: of ffmpeg's log.

    Raises:
        VideoError: there is no ffmpeg that can be run.
    """

    def __init__(self, arguments: list[str], level: str = "error"):
        command = [executable(), "-hide_banner", "-nostdin", "-nostats", "-y", "-loglevel", level, *arguments]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C in a terminal interrupts this process only, which then ends ffmpeg
            env={"SVT_LOG": "1", **os.environ},  # SVT-AV1 logs its settings at higher levels
        )

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes into standard input.

        Raises:
            BrokenPipeError: ffmpeg ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    def finish(self) -> int:
        """End the input and wait for the end of ffmpeg; returns its exit status."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # ffmpeg ended before it read all
            self._process.stdin.close()
        return self._process.wait()

    def log(self) -> list[str]:
        """Lines of its log so far."""
        self._log.seek(0)
        lines = (line.decode("utf-8", "replace").strip() for line in self._log)  # split at line feeds only
        return [line for line in lines if line and not line.startswith(_REPEATED)]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self.finish()
        self._log.close()


def complaint(lines: list[str]) -> str:
    """The most informative line of a log, without the address of the internal object that wrote it."""
    plain = [line.split("] ", 1)[1] if line.startswith("[") and "] " in line else line for line in lines]
    informative = [line for line in plain if not line.startswith(_VAGUE)] or plain
    if not informative:
        return "ffmpeg failed without a message"
    missing = next((line for line in informative if _LACKS.search(line)), None)
    return informative[-1] if missing is None else f"{missing} in {described()}"
