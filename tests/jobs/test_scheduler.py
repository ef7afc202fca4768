# SPDX-License-Identifier: MIT
"""Sources and segments as tasks: in which order, what failures and stops leave, and the same bytes as alone."""

import importlib.util
import multiprocessing.spawn
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import nervcodec
from nervcodec import options, worker
from nervcodec.encoding.pipeline import TaskRunner
from nervcodec.errors import ConfigError, NervError, VideoError
from nervcodec.events import Observer
from nervcodec.formats.container import Container
from nervcodec.formats.fields import to_json
from nervcodec.jobs.inputs import Job
from nervcodec.jobs.ray_cluster import RayCluster, missing
from nervcodec.jobs.scheduler import Scheduler
from nervcodec.jobs.workers import Done, Executor, LocalWorkers
from nervcodec.threads import StalledError, read_ahead
from nervcodec.worker import WorkerLostError

BASE = {"base": "av1", "segment": "0.4s", "duration_s": 1.2, "encoder": "offline", "audio": "none"}
SAMPLED = {"segment": "6f", "duration_s": 0.6, "epochs": 2, "encoder": "none", "split": "1_1_2", "precision": "fp32"}
SHORT = {"duration_s": 0.3, "epochs": 1, "encoder": "none"}
COPY = {"base": "copy", "encoder": "offline", "segment": "1s"}
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")


class Here(Executor):
    """An executor of several slots in this process, which runs the task that was submitted last first."""

    def __init__(self, slots=3, lost=()):
        self.slots, self.lost = slots, lost
        self.tasks, self.kinds, self.closed = [], [], False
        self.runner = TaskRunner(Observer(), seeks=True)

    @property
    def running(self):
        return len(self.tasks)

    def submit(self, key, kind, arguments):
        self.kinds.append(kind)
        self.tasks.append((key, kind, arguments))

    def next_done(self, _within_s):
        key, kind, arguments = self.tasks.pop()
        if kind in self.lost:
            return Done(key, error=WorkerLostError())
        try:
            return Done(key, self.runner.run(kind, *arguments))
        except Exception as error:
            return Done(key, error=error)

    def close(self):
        self.tasks.clear()
        self.closed = True


class Watching(Observer):
    def __init__(self, stop_after=None):
        self.notes, self.works, self.stop_after = [], [], stop_after

    def note(self, text):
        self.notes.append(text)

    def work(self, event):
        self.works.append(event)

    def stop_requested(self):
        return self.stop_after is not None and bool(self.works) and self.works[-1].tasks >= self.stop_after


def run(executor, sources, out, observer=None, **settings):
    jobs = [Job(Path(source), out / f"{Path(source).stem}.nerv") for source in sources]
    return list(Scheduler(executor, jobs, options.from_flat(**settings), False, observer or Watching()).reports())


def contents(path):
    """All of a container but the time that its fit took."""
    with Container.open(path) as opened:
        opened.verify()
        header = to_json(replace(opened.header, fit=replace(opened.header.fit, fit_s=0.0)))
        return header, {name: opened.array(name).tobytes() for name in opened.header.tensors}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [BASE, SAMPLED, SHORT, COPY])
def test_the_same_bytes_as_alone(settings, carphone, tmp_path):
    alone = nervcodec.encode(carphone, tmp_path / "alone.nerv", **settings)
    cluster, seen = Here(), Watching()
    (report,) = run(cluster, [carphone], tmp_path, seen, **settings)
    assert report.status == "done"
    assert contents(report.target) == contents(alone.path)
    assert (report.report.psnr_db, report.report.steps) == (alone.psnr_db, alone.steps)
    with Container.open(report.target) as opened:
        segments = len(opened.header.segments)
    before = {"av1": ["embed"] * segments, "copy": []}.get(settings.get("base"), ["share"] if segments > 1 else [])
    encoding = ["copy"] if settings is COPY else ["encode"] * segments
    assert cluster.kinds == ["setup", "plan", *before, *encoding]
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
    (report,) = run(Here(lost=("encode",)), [carphone], tmp_path, **{**BASE, "encoder": "none"})
    assert (report.status, report.seconds > 0) == ("failed", True)
    assert report.reason.startswith("a worker died while encoding segment ")
    assert report.reason.endswith(" of 4, 3 times (out of memory?)")


def test_what_was_finished_before_a_stop_is_not_done_again(carphone, tmp_path):
    settings = {**BASE, "encoder": "none"}
    first = Here(slots=2)
    (report,) = run(first, [carphone], tmp_path, Watching(stop_after=2), **settings)
    assert first.closed
    assert (report.status, report.reason) == ("stopped", "1 segment kept")
    assert [place.name for place in (tmp_path / f"{carphone.stem}.nerv.resume").iterdir()] == ["segment_1"]
    again = Here()
    (report,) = run(again, [carphone], tmp_path, **settings)
    with Container.open(report.target) as opened:
        assert again.kinds == ["setup", "plan"] + ["encode"] * (len(opened.header.segments) - 1)
    alone = nervcodec.encode(carphone, tmp_path / "alone.nerv", **settings)
    assert contents(report.target) == contents(alone.path)


def test_one_process_goes_on_where_workers_stopped(carphone, tmp_path):
    """The date of the source does not count: it was restored meanwhile."""
    source, settings = Path(shutil.copy(carphone, tmp_path / "source.mp4")), {**BASE, "encoder": "none"}
    run(Here(slots=2), [source], tmp_path, Watching(stop_after=2), **settings)
    os.utime(source, (0, 0))
    report = nervcodec.encode(source, tmp_path / "source.nerv", resume=True, **settings)
    alone = nervcodec.encode(source, tmp_path / "alone.nerv", **settings)
    assert contents(report.path) == contents(alone.path)


def test_workers_are_announced_before_an_interrupt_keeps_anything(carphone, tmp_path):
    """The command line then knows what it keeps: finished segments, not the state of a fit."""

    class Ordered(Watching):
        works_before = None

        def partial_result_ready(self):
            if self.works_before is None:
                self.works_before = len(self.works)

    seen = Ordered()
    run(Here(slots=2), [carphone], tmp_path, seen, **{**BASE, "duration_s": 0.2, "encoder": "none"})
    assert seen.works_before == 1


def test_what_a_machine_does_not_see(carphone, tmp_path):
    paths = [(str(carphone), carphone.stat().st_size), (str(tmp_path / "none.mp4"), 7), (str(tmp_path), 0)]
    assert missing(paths) == [str(tmp_path / "none.mp4")]


def test_what_does_not_go_together(carphone, tmp_path):
    with pytest.raises(ConfigError, match="workers must be 1 or more"):
        nervcodec.encode_many(carphone, tmp_path / "out", workers=0)
    with pytest.raises(ConfigError, match="--log-dir"):
        nervcodec.encode_many(carphone, tmp_path / "out", ray="auto", log_dir=str(tmp_path / "log"))


# ------------------------------------------------------------------ in worker processes


class Fragile(TaskRunner):
    """Kills its process, or hangs, while it plans a source of a certain name."""

    def plan(self, source, options):
        if source.stem == "killed_once" and not (marker := source.with_suffix(".marker")).exists():
            marker.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        if source.stem == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if source.stem == "stalled":
            try:
                next(read_ahead(iter(lambda: time.sleep(3600), 0), 1, 0.1))
            except StalledError:
                raise VideoError(f"{source}: gave no frame for 0.1 s") from None
        self._observer.note(f"{source.stem} planned by {os.getpid()}")
        return super().plan(source, options)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_dies_or_hangs_takes_down_one_task(count, carphone, tmp_path):
    names = ["a", "killed", "b", "stalled", "c", "killed_once"]
    sources = [Path(shutil.copy(carphone, tmp_path / f"{name}.mp4")) for name in names]
    seen, executor = Watching(), None
    executor = LocalWorkers(count, seen, Fragile)
    try:
        reports = {report.source.stem: report for report in run(executor, sources, tmp_path, seen, **SHORT)}
    finally:
        executor.close()
    statuses = {name: report.status for name, report in reports.items()}
    assert statuses == {**dict.fromkeys(names, "done"), "killed": "failed", "stalled": "failed"}
    assert reports["killed"].reason == "a worker died while reading it, 3 times (out of memory?)"
    assert reports["stalled"].reason == "gave no frame for 0.1 s"
    assert sum("killed_once.mp4: a worker died while reading it; it is tried again" in note for note in seen.notes) == 1
    planned = dict(note.split(" planned by ") for note in seen.notes if " planned by " in note)
    assert set(planned) == {"a", "b", "c", "killed_once"}
    if count == 1:  # the one that planned b died of nothing, but hung afterwards
        assert planned["b"] != planned["c"]
    assert not any(is_running(int(process)) for process in planned.values())
    assert not list(tmp_path.glob(".*"))


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("settings", [BASE, SAMPLED, COPY])
def test_workers_write_the_same_bytes(settings, carphone, tmp_path):
    """With the number of threads that this process has, on which sums in float32 depend."""
    alone = nervcodec.encode(carphone, tmp_path / "alone.nerv", **settings)
    executor = LocalWorkers(1, Watching())
    try:
        (report,) = run(executor, [carphone], tmp_path, **settings)
    finally:
        executor.close()
    assert report.status == "done", report.reason
    assert contents(report.target) == contents(alone.path)
    if "base" in settings:  # no time of a fit is recorded
        assert report.target.read_bytes() == alone.path.read_bytes()
    assert report.report.psnr_db == alone.psnr_db


@pytest.mark.slow
def test_what_a_worker_reports_is_seen(carphone, tmp_path):
    class Full(Watching):
        def __init__(self):
            super().__init__()
            self.steps, self.stages = [], []

        def step(self, event):
            self.steps.append(event)

        def stage(self, name, total=None):
            self.stages.append(name)

    seen = Full()
    executor = LocalWorkers(1, seen)
    try:
        run(executor, [carphone], tmp_path, seen, **SHORT)
    finally:
        executor.close()
    assert seen.stages == ["Preparing", "Reading", "Fitting", "Measuring"]
    assert seen.steps[-1].fraction == 1


@pytest.mark.slow
def test_a_worker_saves_the_state_of_its_fit_and_its_successor_resumes_it(carphone, tmp_path):
    """The worker is killed in the middle of a fit; the second one begins where the first one saved it."""

    class Killing(Watching):
        first = None  # step of the second worker

        def step(self, event):
            if self.notes and self.first is None:
                self.first = event.step
            if not self.notes and event.step >= 50 and (tmp_path / f"{carphone.stem}.nerv.resume" / "fit").exists():
                executor._workers[0]._process.kill()

    seen = Killing()
    executor = LocalWorkers(1, seen, SavesOften)
    try:
        (report,) = run(executor, [carphone], tmp_path, seen, **{**SHORT, "epochs": 200})
    finally:
        executor.close()
    assert report.status == "done"
    assert "a worker died while encoding it; it is tried again" in seen.notes[0]
    assert seen.first > 5
    assert not list(tmp_path.glob("*.resume"))


class Simple:
    """Tasks without an encode."""

    def __init__(self, _observer, _seeks):
        pass

    def run(self, kind, *arguments):
        return getattr(self, kind)(*arguments)

    def process(self):
        return os.getpid()

    def freeze(self):
        os.kill(os.getpid(), signal.SIGSTOP)

    def unpicklable(self):
        return lambda: None

    def fail(self):
        raise VideoError("a.mp4: no frame could be read")


def one_task(executor, kind, key="key"):
    executor.submit(key, kind, ())
    while (done := executor.next_done(0.1)) is None:
        assert executor.running
    return done


@pytest.fixture
def simple():
    executor = LocalWorkers(1, Watching(), Simple)
    yield executor
    executor.close()


@pytest.mark.parametrize("settled_s", [0.0, 0.5])
def test_a_worker_that_dies_while_idle_is_replaced(settled_s, simple):
    """At once, its death may not be known yet when the next task is sent: that is lost and tried again."""
    first = one_task(simple, "process").value
    os.kill(first, signal.SIGKILL)
    time.sleep(settled_s)
    done = one_task(simple, "process", "another")
    if done.error is not None:
        assert (settled_s, type(done.error)) == (0.0, WorkerLostError)
        done = one_task(simple, "process", "another")
    assert (done.key, done.error) == ("another", None)
    assert done.value != first


@pytest.mark.slow
def test_a_worker_that_does_not_respond_is_replaced(simple, monkeypatch):
    monkeypatch.setattr(worker, "SILENT_S", 1.0)
    first = one_task(simple, "process").value
    assert isinstance(one_task(simple, "freeze").error, WorkerLostError)
    assert not is_running(first)
    assert one_task(simple, "process").value != first


def test_results_and_errors_of_a_worker(simple):
    failed = one_task(simple, "fail").error
    assert (type(failed), str(failed)) == (VideoError, "a.mp4: no frame could be read")
    assert "in fail\n" in str(failed.__cause__)
    assert "pickle" in str(one_task(simple, "unpicklable").error)
    assert one_task(simple, "process").error is None


@pytest.mark.parametrize("name", ["false", "missing"])
def test_workers_that_cannot_start(name, simple, monkeypatch):
    one_task(simple, "process")  # so that the tracker of multiprocessing runs
    simple.close()
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(shutil.which(name) or f"/nowhere/{name}"))
    with pytest.raises(NervError, match=rf"^a worker process cannot be started: {sys.executable} \("):
        one_task(simple, "process")
    assert not simple.running


class SavesOften(TaskRunner):
    def __init__(self, observer, seeks):
        from nervcodec.training import checkpoint

        checkpoint.EVERY_S = checkpoint.FIRST_S = 0.2
        super().__init__(observer, seeks)


PARENT = """
import sys
import nervcodec
from nervcodec.events import Observer

class Printing(Observer):
    def stage(self, name, total=None):
        print(name, flush=True)

if __name__ == "__main__":
    settings = {"epochs": 100_000, "encoder": "none", "scale": 0.5}
    nervcodec.encode_many(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]), observer=Printing(), **settings)
"""


def children(process):
    """Descendants of a process, by Linux's account."""
    found = []
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        found += [int(child), *children(int(child))]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads Linux's account of processes")
def test_workers_end_with_the_process_that_started_them(carphone, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), str(carphone), str(tmp_path / "out"), "1"]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert "Fitting\n" in iter(parent.stdout.readline, "")
        started = children(parent.pid)
        assert len(started) >= 2  # a worker, and the tracker of multiprocessing
    finally:
        parent.kill()
        parent.communicate(60)
    deadline = time.monotonic() + 60
    while any(map(is_running, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, started))


# ------------------------------------------------------------------ on Ray itself


@pytest.fixture(scope="module")
def cluster():
    executor = RayCluster("local", 2, False, Watching())
    yield executor
    executor.close()


@needs_ray
@pytest.mark.slow
def test_on_ray(cluster, carphone, tmp_path):
    assert (cluster.slots, cluster.is_remote) == (2, True)
    assert cluster.unseen([str(carphone)]) == {}
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a video")
    for settings in ({**BASE, "encoder": "none"}, {"base": "copy", "encoder": "none"}):
        found = run(cluster, [carphone, broken], tmp_path, **settings)
        assert sorted(report.status for report in found) == ["done", "failed"]
        alone = nervcodec.encode(carphone, tmp_path / "alone.nerv", **settings, force=True)
        assert contents(tmp_path / f"{carphone.stem}.nerv") == contents(alone.path)
        (tmp_path / f"{carphone.stem}.nerv").unlink()


@needs_ray
@pytest.mark.slow
def test_a_task_on_ray_whose_worker_dies(cluster, monkeypatch):
    def kill(_threads, _kind, _arguments):  # by value, since workers know no tests
        os.kill(os.getpid(), signal.SIGKILL)

    run_as_usual = cluster._run
    cluster._run = cluster._ray.remote(kill).options(max_retries=0)
    cluster.submit("a", "plan", ())
    deadline, done = time.monotonic() + 120, None
    while done is None and time.monotonic() < deadline:
        done = cluster.next_done(1.0)
    cluster._run = run_as_usual
    assert (done.key, type(done.error)) == ("a", WorkerLostError)


@needs_ray
def test_no_cluster_at_an_address():
    with pytest.raises(ConfigError, match="no Ray cluster at 127.0.0.1:1 "):
        RayCluster("127.0.0.1:1", None, False, Observer())
