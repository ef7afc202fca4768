# SPDX-License-Identifier: MIT
"""``nervcodec index``, by the real entry point."""

import json
import shutil
import signal
import time
from pathlib import Path

from nervcodec.errors import FolderIndexError
from nervcodec.index.store import Store

GOLDEN = Path(__file__).parents[1] / "golden"


def test_search_uses_an_index(run, tmp_path):
    for name in ("version3_grid.nerv", "version3_lapped.nerv"):
        shutil.copy(GOLDEN / name, tmp_path)
    (tmp_path / "broken.nerv").write_bytes(b"nothing")
    result = run("index", tmp_path, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["files"], report["new"], report["gone"]) == (3, 3, 0)
    assert list(report["unreadable"]) == ["broken.nerv"]
    assert "skipped: broken.nerv: not a .nerv file" in result.stderr
    again = dict(line.split("\t") for line in run("index", tmp_path).stdout.splitlines())
    assert (again["files"], again["new"], again["unreadable"]) == ("3", "0", "1")
    rebuilt = json.loads(run("index", tmp_path, "--force", "--json").stdout)
    assert (rebuilt["new"], rebuilt["rows"]) == (3, report["rows"])


def test_unreadable_files_are_named_and_left_out(run, tmp_path):
    (tmp_path / "broken.nerv").write_bytes(b"nothing")
    result = run("index", tmp_path)
    assert result.returncode == 1
    assert "none of its 1 files can be indexed" in result.stderr
    assert run("index", tmp_path / "none").returncode == 2


def test_watching_keeps_it_current(forks, tmp_path):
    shutil.copy(GOLDEN / "version3_grid.nerv", tmp_path / "a.nerv")
    watching = forks.start(["index", str(tmp_path), "--watch"], tmp_path)
    wait(lambda: indexed(tmp_path) == ["a.nerv"])
    (tmp_path / "a.nerv").rename(tmp_path / "b.nerv")
    wait(lambda: indexed(tmp_path) == ["b.nerv"])
    watching.send_signal(signal.SIGINT)
    watching.wait(60)
    out, err = watching.communicate()
    assert watching.returncode == 130, err
    assert "moved\t1" in out


def indexed(folder):
    try:
        with Store(folder) as opened:
            return list(opened.files())
    except FolderIndexError:  # it does not exist yet
        return None


def test_an_index_of_an_earlier_version_is_rebuilt_with_a_note(run, tmp_path):
    shutil.copy(GOLDEN / "version3_grid.nerv", tmp_path)
    (tmp_path / ".nervcodec" / "files.lance").mkdir(parents=True)
    first, second = run("index", tmp_path), run("index", tmp_path)
    assert "its index is of an earlier nervcodec and is rebuilt" in first.stderr
    assert (first.returncode, second.returncode, second.stderr) == (0, 0, "")


def wait(until, seconds=60):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.1)
