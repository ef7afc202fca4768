# SPDX-License-Identifier: MIT
"""A folder of all kinds of containers, and a real server for it."""

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from looks import browser, look, shelf, shop, view
from sites import GRID, LAPPED, MUTE, TIMES_S, VARIABLE_END_S, changed, serving, sound, spoilt

from nervcodec.formats.header import AUDIO, FRAME_TIMES

__all__ = ["browser", "look", "shelf", "shop", "view"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory, ffmpeg) -> Path:
    """Containers of all kinds, links, and what shall not be shown."""
    root = tmp_path_factory.mktemp("site")
    place = root / "videos"
    (place / "deep" / "er").mkdir(parents=True)
    (root / "secret").mkdir()
    shutil.copy(GRID, place / "grid.nerv")
    shutil.copy(LAPPED, place / "deep" / "er" / "lapped.nerv")
    shutil.copy(GRID, place / "a b#c?d%41 ü.nerv")
    shutil.copy(MUTE, place / "mute.nerv")
    spoilt(GRID, place / "spoilt.nerv")
    (place / "cut.nerv").write_bytes(GRID.read_bytes()[:-9])
    (place / "broken.nerv").write_bytes(b"nothing")
    tone = sound(ffmpeg, root, "-c:a", "aac", "-b:a", "96k")
    changed(LAPPED, place / "aac.nerv", {AUDIO: tone})
    tone = sound(ffmpeg, root, "-c:a", "libopus")
    varied = {"variable_frame_rate": True, "duration_s": VARIABLE_END_S}
    changed(LAPPED, place / "varied.nerv", {AUDIO: tone, FRAME_TIMES: TIMES_S}, **varied)
    shutil.copy(GRID, root / "secret" / "outside.nerv")
    shutil.copy(GRID, place / ".hidden.nerv")
    (place / "@eaDir").mkdir()
    shutil.copy(GRID, place / "@eaDir" / "grid.nerv")
    (place / "notes.txt").write_text("private")
    os.symlink(root / "secret" / "outside.nerv", place / "out.nerv")
    os.symlink(root / "secret", place / "out")
    os.symlink(place / "grid.nerv", place / "within.nerv")
    os.symlink(place / "nowhere.nerv", place / "dangling.nerv")
    return place


@pytest.fixture(scope="session")
def site(folder):
    """A server for the folder."""
    with serving(folder) as running:
        yield running
