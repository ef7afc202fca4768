# SPDX-License-Identifier: MIT
"""The ffmpeg binary: missing, another program, or without a needed encoder or filter."""

import re

import imageio_ffmpeg
import pytest

from nervcodec.errors import VideoError
from nervcodec.media import ffmpeg


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_binary_of_imageio_ffmpeg_is_the_default():
    assert ffmpeg.executable() == imageio_ffmpeg.get_ffmpeg_exe()
    assert ffmpeg.executable() in ffmpeg.described()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, "cannot be run as ffmpeg (No such file or directory)"),
        ("", "cannot be run as ffmpeg"),
        ("echo hello", "is no ffmpeg"),
        ("exit 1", "is no ffmpeg"),
    ],
)
def test_a_program_that_is_no_ffmpeg_is_refused(program, message, tmp_path, monkeypatch):
    path = tmp_path / "helper"
    if program == "":
        path.write_text("no program")
    elif program:
        script(path, program)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    with pytest.raises(VideoError) as caught:
        ffmpeg.executable()
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("; IMAGEIO_FFMPEG_EXE names it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["5.1.9-0+deb12u1", "6.0", "N-12345-gabcdef", "2026-01-01-git-abc"])
def test_any_version_is_accepted(version, tmp_path, monkeypatch):
    path = script(tmp_path / "helper", f"echo ffmpeg version {version} Copyright")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    assert ffmpeg.described() == f"{path} (ffmpeg {version})"


def test_a_missing_encoder_is_reported_with_the_binary(tmp_path, monkeypatch):
    real = imageio_ffmpeg.get_ffmpeg_exe()
    refuse = "echo \"[vost#0:0 @ 0x55] Unknown encoder 'libx264'\" >&2; exit 8"
    lacking = f'case "$*" in *libx264*) {refuse};; esac; exec {real} "$@"'
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(script(tmp_path / "helper", lacking)))
    with ffmpeg.Process(["-f", "lavfi", "-i", "testsrc", "-c:v", "libx264", "-f", "null", "-"]) as process:
        assert process.finish() == 8
        assert re.match(r"Unknown encoder 'libx264' in .*helper \(ffmpeg n\d+", ffmpeg.complaint(process.log()))


def test_leaving_the_block_ends_ffmpeg(bikes):
    with ffmpeg.Process(["-stream_loop", "-1", "-i", str(bikes), "-f", "null", "-"]) as process:
        pass
    assert process.finish() != 0


def test_a_filter_is_found_by_its_full_name_only():
    assert ffmpeg.has_filter("scale")
    assert not ffmpeg.has_filter("scal")


def test_the_most_informative_line_of_a_log():
    lines = ["[h264 @ 0x5] first", "[out#0/mp4 @ 0x5] could not find tag", "Conversion failed!"]
    assert ffmpeg.complaint(lines) == "could not find tag"
    assert ffmpeg.complaint([]) == "ffmpeg failed without a message"
