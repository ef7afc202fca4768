# SPDX-License-Identifier: MIT
"""Running the ffmpeg binary: where it is, and how its complaints become one line."""

from __future__ import annotations

import subprocess

from nervcodec.errors import VideoError


def executable() -> str:
    """Path of imageio-ffmpeg's binary (or the one named by ``IMAGEIO_FFMPEG_EXE``).

    Raises:
        VideoError: there is none for this platform.
    """
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise VideoError(f"no ffmpeg binary: {error}") from None


def last_complaint(stderr: str) -> str:
    """The most telling line of ffmpeg's error output, without the address of its internal objects."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("Conversion failed", "Error opening output"))]
    if not lines:
        return "ffmpeg failed without saying why"
    line = lines[-1]
    return line.split("] ", 1)[1] if line.startswith("[") and "] " in line else line


def spawn(arguments: list[str], **streams: int) -> subprocess.Popen[bytes]:
    """Start ffmpeg with quiet defaults; stdin is closed unless a pipe is asked for."""
    streams.setdefault("stdin", subprocess.DEVNULL)
    command = [executable(), "-hide_banner", "-nostdin", "-y", *arguments]
    return subprocess.Popen(command, **streams)  # type: ignore[call-overload]
