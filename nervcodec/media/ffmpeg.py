# SPDX-License-Identifier: MIT
"""The ffmpeg binary: its path and version, one run of it, and its errors in one line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from nervcodec.errors import VideoError

_VARIABLE = "IMAGEIO_FFMPEG_EXE"
_ANSWERS_IN_S = 20.0
LEAST_VMAF_SIDE = 17  # of frames: libvmaf crashes on smaller ones
_VMAF, _SCORES = "libvmaf", "scores.json"
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
        folder: the current folder of ffmpeg; None for that of this process.

    Raises:
        VideoError: there is no ffmpeg that can be run.
    """

    def __init__(self, arguments: list[str], folder: str | None = None):
        program = executable()
        program = os.path.abspath(program) if os.path.dirname(program) else program
        command = [program, "-hide_banner", "-nostdin", "-nostats", "-y", "-loglevel", "error", *arguments]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            cwd=folder,
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


def require_vmaf() -> None:
    """Check that the binary can measure VMAF.

    Raises:
        VideoError: there is no ffmpeg that can be run, or it has no libvmaf.
    """
    if not has_filter(_VMAF):
        raise VideoError(f"{described()} has no libvmaf, which --vmaf needs; name a build with it in {_VARIABLE}")


class Vmaf:
    """libvmaf (model v0.6.1) in a process of ffmpeg, which gets each frame above its source through one pipe.

    It measures nothing without libvmaf in the binary, or of frames too small for it. Leaving its ``with`` block ends
    the process.

    Args:
        width, height: of a frame.
        pixels: ``rgb24`` or ``gray10le``.
        every: of this number of frames one is measured.

    Raises:
        VideoError: there is no ffmpeg that can be run.
    """

    def __init__(self, width: int, height: int, pixels: str = "rgb24", every: int = 1):
        self._stack, self._process = contextlib.ExitStack(), None
        self._every = every
        if not has_filter(_VMAF) or min(width, height) < LEAST_VMAF_SIDE:
            return
        # libvmaf takes no gray, whose conversion must keep its values.
        is_gray = pixels == "gray10le"
        convert = ",scale=in_range=pc:out_range=pc,format=yuv420p10le" if is_gray else ",format=yuv420p"
        halves = f"[0:v]split[a][b];[a]crop={width}:{height}:0:0{convert}[d];[b]crop={width}:{height}:0:{height}"
        halves += f"{convert}[r];[d][r]libvmaf=n_threads=2:n_subsample={every}:log_fmt=json:log_path={_SCORES}"
        size = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{width}x{2 * height}", "-framerate", "25"]
        # Its log has a name without a folder: a path would have to be escaped for the filter graph.
        self._folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        arguments = [*size, "-i", "pipe:0", "-filter_complex", halves, "-f", "null", "-"]
        self._process = self._stack.enter_context(Process(arguments, self._folder))

    def add(self, frame: np.ndarray, source: np.ndarray) -> None:
        """One frame and its source: arrays of the pixel format.

        Raises:
            VideoError: libvmaf refused.
        """
        if self._process is None:
            return
        try:
            for image in (frame, source):
                self._process.write(np.ascontiguousarray(image).data.cast("B"))
        except BrokenPipeError:
            raise self._failed() from None

    def scores(self) -> np.ndarray:
        """``(n,)`` VMAF of each measured frame, 0 to 100; no more frames can be added.

        Raises:
            VideoError: libvmaf refused.
        """
        if self._process is None:
            return np.zeros(0)
        if self._process.finish():
            raise self._failed()
        frames = json.loads((Path(self._folder) / _SCORES).read_text())["frames"]
        return np.array([frame["metrics"]["vmaf"] for frame in frames if "vmaf" in frame["metrics"]])

    def mean(self) -> float | None:
        """The mean of :meth:`scores`; None where it measures nothing."""
        return None if self._process is None else float(self.scores().mean())

    def _failed(self) -> VideoError:
        assert self._process is not None
        return VideoError(f"libvmaf failed ({complaint(self._process.log())})")

    def __enter__(self) -> Vmaf:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
