# SPDX-License-Identifier: MIT
"""Sources and segments as tasks: in which order, what failures and stops leave, and the same bytes as alone."""

import importlib.util
import os
import shutil
import signal
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nervcodec
from nervcodec import options
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.formats.container import Container
from nervcodec.formats.fields import to_json
from nervcodec.jobs.cluster import WorkerLostError, Workers, started, unseen
from nervcodec.jobs.inputs import Job
from nervcodec.jobs.parallel import encode_on
from nervcodec.jobs.work import look, size_of

BASE = {"base": "av1", "segment": "0.4s", "duration_s": 1.2, "encoder": "offline", "audio": "none"}
SAMPLED = {"segment": "6f", "duration_s": 0.6, "epochs": 2, "encoder": "none", "split": "1_1_2", "precision": "fp32"}
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")


class Here:
    """A cluster that does its tasks in this process, the one that was given last first."""

    is_elsewhere = False

    def __init__(self, slots=3, lost=()):
        self.slots, self.threads, self.lost = slots, 1, lost
        self.tasks, self.names, self.cancelled = deque(), [], False

    @property
    def running(self):
        return len(self.tasks)

    def put(self, value):
        return value

    def submit(self, name, task, *arguments):
        self.names.append(task.__name__)
        self.tasks.append((name, task, arguments))

    def next_done(self, _within_s):
        name, task, arguments = self.tasks.pop()
        if task.__name__ in self.lost:
            raise WorkerLostError(name)
        return name, task(1, *arguments)

    def cancel(self):
        self.tasks.clear()
        self.cancelled = True


class Watching(Observer):
    def __init__(self, stop_after=None):
        self.notes, self.works, self.stop_after = [], [], stop_after

    def note(self, text):
        self.notes.append(text)

    def work(self, event):
        self.works.append(event)

    def stop_requested(self):
        return self.stop_after is not None and bool(self.works) and self.works[-1].tasks >= self.stop_after


def run(cluster, sources, out, observer=None, **settings):
    jobs = [Job(Path(source), out / f"{Path(source).stem}.nerv") for source in sources]
    return list(encode_on(cluster, jobs, options.from_flat(**settings), observer or Watching()))


def contents(path):
    """All of a container but the time that its fit took."""
    with Container.at(path) as opened:
        opened.verify()
        header = to_json(replace(opened.header, fit=replace(opened.header.fit, fit_s=0.0)))
        return header, {name: opened.array(name).tobytes() for name in opened.header.tensors}


@pytest.mark.parametrize("settings", [BASE, SAMPLED, {"duration_s": 0.3, "epochs": 1, "encoder": "none"}])
def test_the_same_bytes_as_alone(settings, carphone, tmp_path):
    alone = nervcodec.encode(carphone, tmp_path / "alone.nerv", **settings)
    cluster, seen = Here(), Watching()
    (report,) = run(cluster, [carphone], tmp_path, seen, **settings)
    assert report.status == "done"
    assert contents(report.target) == contents(alone.path)
    assert (report.report.psnr_db, report.report.steps) == (alone.psnr_db, alone.steps)
    with Container.at(report.target) as opened:
        segments = len(opened.header.segments)
    kinds = {"begin": 1, "embed": segments, "share": 1, "encode_segment": segments}
    expected = ["begin", "embed", "encode_segment"] if settings is BASE else ["begin", "share", "encode_segment"]
    expected = expected if segments > 1 else ["begin"]
    assert cluster.names == [kind for kind in expected for _ in range(kinds[kind])]
    assert seen.works[-1].done == seen.works[-1].files == 1
    assert [event.done for event in seen.works] == sorted(event.done for event in seen.works)
    assert not list(tmp_path.glob("*.resume"))


def test_one_that_fails_does_not_stop_the_rest(carphone, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a video")
    blocked = tmp_path / "blocked.mp4"
    shutil.copy(carphone, blocked)
    (tmp_path / "blocked.nerv").mkdir()
    seen = Watching()
    settings = {"duration_s": 0.2, "epochs": 1, "encoder": "none"}
    found = {report.source: report for report in run(Here(), [broken, blocked, carphone], tmp_path, seen, **settings)}
    assert {source.name: report.status for source, report in found.items()} == {
        "broken.mp4": "failed",
        "blocked.mp4": "failed",
        carphone.name: "done",
    }
    assert "could be read" in found[broken].reason
    assert any(str(broken) in note for note in seen.notes)


def test_workers_that_die_time_and_again_are_that_file_s_failure(carphone, tmp_path):
    (report,) = run(Here(lost=("encode_segment",)), [carphone], tmp_path, **{**BASE, "encoder": "none"})
    assert report.status == "failed"
    assert "worker died" in report.reason


def test_what_was_finished_before_a_stop_is_not_done_again(carphone, tmp_path):
    settings = {**BASE, "encoder": "none"}
    first = Here(slots=2)
    (report,) = run(first, [carphone], tmp_path, Watching(stop_after=2), **settings)
    assert first.cancelled
    assert (report.status, report.reason) == ("stopped", "1 segment kept")
    assert [place.name for place in (tmp_path / f"{carphone.stem}.nerv.resume").iterdir()] == ["segment_1"]
    again = Here()
    (report,) = run(again, [carphone], tmp_path, **settings)
    with Container.at(report.target) as opened:
        assert again.names == ["begin"] + ["encode_segment"] * (len(opened.header.segments) - 1)
    alone = nervcodec.encode(carphone, tmp_path / "alone.nerv", **settings)
    assert contents(report.target) == contents(alone.path)


def test_one_process_goes_on_where_workers_stopped(carphone, tmp_path):
    settings = {**BASE, "encoder": "none"}
    run(Here(slots=2), [carphone], tmp_path, Watching(stop_after=2), **settings)
    report = nervcodec.encode(carphone, tmp_path / f"{carphone.stem}.nerv", resume=True, **settings)
    alone = nervcodec.encode(carphone, tmp_path / "alone.nerv", **settings)
    assert contents(report.path) == contents(alone.path)


def test_what_a_machine_does_not_see(carphone, tmp_path):
    paths = [(str(carphone), carphone.stat().st_size), (str(tmp_path / "none.mp4"), 7), (str(tmp_path), 0)]
    assert look(paths) == [str(tmp_path / "none.mp4")]
    assert size_of(str(tmp_path / "none.mp4")) == -1


def test_what_does_not_go_together(carphone, tmp_path):
    with pytest.raises(ConfigError, match="workers must be 1 or more"):
        nervcodec.encode_many(carphone, tmp_path / "out", workers=0)
    with pytest.raises(ConfigError, match="--log-dir"):
        nervcodec.encode_many(carphone, tmp_path / "out", workers=2, log_dir=str(tmp_path / "log"))


# ------------------------------------------------------------------ on Ray itself


@pytest.fixture(scope="module")
def cluster():
    with started(Workers(2)) as cluster:
        yield cluster


def result(cluster):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (found := cluster.next_done(1.0)) is not None:
            return found
    raise AssertionError("no task was done")


@needs_ray
@pytest.mark.slow
def test_on_ray(cluster, carphone, tmp_path):
    assert (cluster.slots, cluster.is_elsewhere) == (2, False)
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a video")
    found = run(cluster, [carphone, broken], tmp_path, **{**BASE, "encoder": "none"})
    assert sorted(report.status for report in found) == ["done", "failed"]
    alone = nervcodec.encode(carphone, tmp_path / "alone.nerv", **{**BASE, "encoder": "none"})
    assert contents(tmp_path / f"{carphone.stem}.nerv") == contents(alone.path)


@needs_ray
@pytest.mark.slow
def test_a_task_whose_worker_dies_runs_again(cluster, tmp_path):
    def kill_once(_threads, marker):  # by value, since workers know no tests
        if not os.path.exists(marker):
            Path(marker).write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    cluster.submit("a", kill_once, str(tmp_path / "marker"))
    name, process = result(cluster)
    assert name == "a"
    assert process != os.getpid()
    assert (tmp_path / "marker").exists()


@needs_ray
@pytest.mark.slow
def test_machines_are_asked_what_they_see(cluster, carphone, tmp_path):
    def total(_threads, array):
        return int(array.sum())

    assert unseen(cluster, [str(carphone)]) == {}
    array = cluster.put(np.arange(5))
    cluster.submit(("any", "name"), total, array)
    assert result(cluster) == (("any", "name"), 10)


@needs_ray
def test_no_cluster_at_an_address():
    with pytest.raises(ConfigError, match="no Ray cluster at 127.0.0.1:1 "), started(Workers(None, "127.0.0.1:1")):
        pass
