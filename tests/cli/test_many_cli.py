# SPDX-License-Identifier: MIT
"""``encode`` for several inputs, by the real entry point."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from nervcodec.cli.main import cli
from nervcodec.formats.container import Container
from nervcodec.jobs import scheduler
from nervcodec.jobs.scheduler import FileReport

TINY = ["--duration", "0.2s", "--epochs", "1", "--encoder", "none"]


@pytest.fixture
def videos(carphone, tmp_path):
    """A folder of two videos, one of which is none."""
    for name in ("videos/a.mp4", "videos/Küche 1/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(carphone, tmp_path / name)
    (tmp_path / "videos" / "Küche 1" / "broken.mp4").write_text("not a video")
    return tmp_path / "videos"


def rows(text: str) -> dict[str, list[str]]:
    return {line.split("\t")[0]: line.split("\t")[1:] for line in text.splitlines()}


@pytest.mark.slow
def test_a_folder_of_videos(run, videos, tmp_path):
    result = run("encode", "videos", "--recursive", "-o", "videos/nerv", *TINY)
    assert result.returncode == 1
    table = rows(result.stdout)
    assert list(table) == ["videos/Küche 1/b.mp4", "videos/Küche 1/broken.mp4", "videos/a.mp4"]
    status, size, quality, seconds, why = table["videos/a.mp4"]
    assert (status, size[-3:], quality[-3:], seconds[-2:], why) == ("done", " KB", " dB", " s", "")
    assert table["videos/Küche 1/broken.mp4"][0] == "failed"
    assert table["videos/Küche 1/broken.mp4"][-1].startswith("no frame could be read")
    assert "Reading ... (file 3 of 3" in result.stderr
    assert run("verify", "videos/nerv/Küche 1/b.nerv").returncode == 0
    assert not (videos / "nerv" / "Küche 1" / "broken.nerv").exists()
    (videos / "Küche 1" / "broken.mp4").unlink()
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not installed')")
    again = run("encode", "videos", "--recursive", "-o", "videos/nerv", *TINY, "--json", "-q", PYTHONPATH=str(tmp_path))
    assert (again.returncode, again.stderr) == (0, "")
    report = json.loads(again.stdout)
    assert [file["status"] for file in report["files"]] == ["skipped"] * 2
    assert (report["done"], report["skipped"], report["failed"], report["not_begun"]) == (0, 2, 0, 0)


@pytest.mark.slow
def test_unreadable_outputs_are_kept_without_force(run, videos, tmp_path):
    golden = (Path(__file__).parents[1] / "golden" / "version3_grid.nerv").read_bytes()
    version = b'"format_version":"%d"'
    refused = {
        "outdated": (golden.replace(version % 3, version % 2), "written by an earlier nervcodec; encode the source"),
        "newer": (golden.replace(version % 3, version % 4), "format version 4 is newer than this nervcodec reads"),
        "foreign": (b"a letter to nobody\n" * 9, "not a .nerv file; --force replaces it"),
    }
    contents = {name: content for name, (content, _) in refused.items()} | {"damaged": golden[:-9]}
    (tmp_path / "out").mkdir()
    shutil.copy(videos / "a.mp4", tmp_path / "a.mp4")
    shutil.rmtree(videos)
    videos.mkdir()
    for name, content in contents.items():
        shutil.copy(tmp_path / "a.mp4", videos / f"{name}.mp4")
        (tmp_path / "out" / f"{name}.nerv").write_bytes(content)
    command = ["encode", "videos", "--recursive", "-o", "out", *TINY]
    result = run(*command)
    assert result.returncode == 1
    table = rows(result.stdout)
    assert {row[0] for name, row in table.items() if "damaged" not in name} == {"failed"}
    assert table["videos/damaged.mp4"][0] == "done"
    for name, (content, message) in refused.items():
        assert (tmp_path / "out" / f"{name}.nerv").read_bytes() == content
        assert f"out/{name}.nerv: {message}" in table[f"videos/{name}.mp4"][-1]
        assert "--force" in table[f"videos/{name}.mp4"][-1]
        single = run("encode", f"videos/{name}.mp4", "-o", f"out/{name}.nerv", *TINY)
        assert (single.returncode, (tmp_path / "out" / f"{name}.nerv").read_bytes()) == (1, content)
        information = run("info", f"out/{name}.nerv")
        assert (information.returncode, information.stderr.count("\n")) == (1, 1)
    forced = run(*command, "--force")
    assert forced.returncode == 0, forced.stderr
    assert {row[0] for row in rows(forced.stdout).values()} == {"done"}
    for name in contents:
        assert run("verify", f"out/{name}.nerv").returncode == 0


@pytest.mark.slow
def test_one_input_is_written_into_a_folder_that_exists_or_ends_with_a_slash(run, videos, tmp_path):
    (tmp_path / "there").mkdir()
    for output in ("there", "made/"):
        result = run("encode", "videos/a.mp4", "-o", output, *TINY, "--json")
        assert result.returncode == 0, result.stderr
        assert (tmp_path / output / "a.nerv").exists()
        (file,) = json.loads(result.stdout)["files"]
        assert file["report"]["bytes"] == (tmp_path / output / "a.nerv").stat().st_size


def test_wrong_usage_is_reported_once_before_any_work(run, videos, tmp_path):
    two = ["encode", "videos/a.mp4", "videos/Küche 1/b.mp4"]
    (tmp_path / "file").write_text("x")
    for output in ("new.nerv", "file"):
        result = run(*two, "-o", output)
        assert result.returncode == 2
        assert f"'{output}' is the name of one file" in result.stderr
    folder = "videos: is a folder of videos; --recursive encodes all that are below it"
    for status, arguments, words in (
        (2, [*two, "-o", "n/", "--size", "1KB", "--bpp", "1"], "choose at most one of --size and --bpp"),
        (1, [*two, "videos", "-o", "n/"], folder),
        (1, ["encode", "videos"], folder),
    ):
        result = run(*arguments)
        assert (result.returncode, result.stdout) == (status, "")
        assert result.stderr == f"nervcodec: {words}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "videos"]


@pytest.mark.slow
def test_ctrl_c_keeps_finished_files_and_the_best_state_of_the_current_one(videos, ffmpeg, carphone, tmp_path):
    ffmpeg("-i", carphone, "-frames:v", "2", "-c", "copy", videos / "Küche 1" / "b.mp4")
    (videos / "c.mp4").write_bytes(carphone.read_bytes())
    command = [Path(sys.executable).with_name("nervcodec"), "encode", "videos", "--recursive", "-o", "n", "--json"]
    process = subprocess.Popen(
        [*map(str, command), "--epochs", "60", "--encoder", "none"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("Fitting ... (file 3 of 4"):
            break
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "best state so far" in err
    assert "interrupted; 2 of 4 files not finished" in err
    report = json.loads(out)
    assert [file["status"] for file in report["files"]] == ["done", "failed", "stopped"]
    assert report["not_begun"] == 1
    for name, complete in (("Küche 1/b.nerv", True), ("a.nerv", False)):
        with Container.open(tmp_path / "n" / name) as opened:
            opened.verify()
            assert opened.header.fit.complete is complete


@pytest.mark.slow
def test_ctrl_c_before_a_partial_result_leaves_nothing(videos, bunny, tmp_path):
    shutil.copy(bunny, videos / "Küche 1" / "large.mp4")
    names = ["videos/a.mp4", "videos/Küche 1/large.mp4", "videos/Küche 1/b.mp4"]
    command = [Path(sys.executable).with_name("nervcodec"), "encode", *names, "-o", "n/", "--epochs", "1"]
    process = subprocess.Popen(
        [*map(str, command), "--encoder", "none"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("Reading ... (file 2"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "nervcodec: interrupted; 2 of 3 files not finished"
    assert list(rows(out)) == names
    assert [rows(out)[name][0] for name in names] == ["done", "not encoded", "not encoded"]
    assert [path.name for path in (tmp_path / "n").iterdir()] == ["a.nerv"]


@pytest.mark.slow
def test_json_of_a_folder_without_a_video(run, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("encode", "empty", "--recursive", "--json")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    report = json.loads(result.stdout)
    assert (report["files"], report["done"], report["failed"]) == ([], 0, 0)


@pytest.mark.parametrize("left", [0, 1])
def test_ctrl_c_after_the_last_file_is_no_interruption(left, videos, tmp_path, monkeypatch):
    def reports(found, _options, _force, progress, _workers):
        for job in found.jobs[left:]:
            yield FileReport(job.source, job.target, "done")
        progress.partial_result_ready()
        progress._interrupt(signal.SIGINT, None)

    monkeypatch.setattr(scheduler, "encode_each", reports)
    result = CliRunner().invoke(cli, ["encode", str(videos), "--recursive"])
    assert result.exit_code == (130 if left else 0)
    assert ("not finished" in result.stderr) is bool(left)
