# SPDX-License-Identifier: MIT
"""Decoding starts no other program."""

import subprocess

import av
import pytest
from click.testing import CliRunner

import nervcodec
from nervcodec.cli.main import cli


@pytest.fixture(scope="module")
def kitchen(bunny, tmp_path_factory):
    """Half a second with sound and an AV1 base."""
    path = tmp_path_factory.mktemp("kitchen") / "kitchen.nerv"
    nervcodec.encode(bunny, path, base="av1", encoder="none", crf=50, duration_s=0.5, scale=(128, 72))
    return path


@pytest.mark.parametrize("base_only", [False, True], ids=["", "base-only"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".y4m", ".mov", ".avi"])
def test_decode_starts_no_process(suffix, base_only, kitchen, tmp_path, monkeypatch):
    if base_only and suffix not in (".mp4", ".mkv", ".webm"):
        pytest.skip("no format for a base layer")

    def refuse(*arguments, **_):
        raise AssertionError(f"{arguments} was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
    path = tmp_path / f"a{suffix}"
    result = CliRunner().invoke(cli, ["decode", str(kitchen), "-o", str(path), *["--base-only"] * base_only])
    assert result.exit_code == 0, result.output
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 13
        assert len(container.streams.audio) == (suffix != ".y4m")
