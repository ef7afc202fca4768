# SPDX-License-Identifier: MIT
"""The ffmpeg binary: its path and version, one run of it, and its errors in one line."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from functools import cache
from types import TracebackType

from nervcodec.errors import VideoError

_VARIABLE = "IMAGEIO_FFMPEG_EXE"
_OLDEST = (5, 1)  # the first with -fps_mode
_ANSWERS_IN_S = 20.0
_MOST_LINES = 10_000  # of a log that are kept
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
        said = subprocess.run(
            [path, "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_ANSWERS_IN_S, check=False
        ).stdout.decode("utf-8", "replace")
    except OSError as error:
        raise VideoError(f"{path}: cannot be run as ffmpeg ({error.strerror or error}); {remedy}") from None
    except subprocess.TimeoutExpired:
        raise VideoError(f"{path}: does not answer as ffmpeg does; {remedy}") from None
    if not (match := re.match(r"ffmpeg version (\S+)", said)):
        raise VideoError(f"{path}: is no ffmpeg; {remedy}")
    version = match[1]
    number = re.match(r"n?(\d+)\.(\d+)", version)  # builds from a repository carry no number, and are recent
    if number and (int(number[1]), int(number[2])) < _OLDEST:
        needed = ".".join(map(str, _OLDEST))
        raise VideoError(f"{path}: is ffmpeg {version}, and {needed} or newer is needed; {remedy}")
    return path, version


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
    """One run of ffmpeg, which reads what is written. Leaving its ``with`` block ends it, whatever happened there.

    Args:
        arguments: after quiet defaults; only errors are logged.
        level: of ffmpeg's log.

    Attributes:
        log: lines that it logged so far.

    Raises:
        VideoError: there is no ffmpeg that can be run.
    """

    def __init__(self, arguments: list[str], level: str = "error"):
        command = [executable(), "-hide_banner", "-nostdin", "-nostats", "-y", "-loglevel", level, *arguments]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for us alone, who then end it
            env={"SVT_LOG": "1", **os.environ},  # SVT-AV1 logs its settings at higher levels
        )
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        self.log: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:  # split at line feeds only: free text may hold every other separator
            text = line.decode("utf-8", "replace").strip()
            if text and not text.startswith(_REPEATED) and len(self.log) < _MOST_LINES:
                self.log.append(text)

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes into standard input.

        Raises:
            BrokenPipeError: ffmpeg ended.
        """
        self._stdin.write(data)

    def end_input(self) -> None:
        """No more is written."""
        with contextlib.suppress(BrokenPipeError):  # what was still buffered has no reader any more
            self._stdin.close()

    def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        status = self._process.wait()
        self._listener.join()
        return status

    def complaint(self) -> str:
        """The most informative line of its log, without the address of its internal objects."""
        return complaint(self.log)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self.end_input()
        self.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


def complaint(lines: list[str]) -> str:
    """The most telling of the lines that ffmpeg logged, in one line."""
    telling = [line for line in lines if not _plain(line).startswith(_VAGUE)] or lines
    if not telling:
        return "ffmpeg failed without a message"
    for line in telling:
        if _LACKS.search(line):
            return f"{_plain(line)} in {described()}"
    return _plain(telling[-1])


def _plain(line: str) -> str:
    """A line of the log without the address of the internal object that wrote it."""
    return line.split("] ", 1)[1] if line.startswith("[") and "] " in line else line
