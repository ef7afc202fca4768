# SPDX-License-Identifier: MIT
"""Tasks on the machines of a Ray cluster. The only module that imports Ray."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Hashable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.jobs.workers import Done, Executor
from nervcodec.worker import WorkerLostError

if TYPE_CHECKING:
    from nervcodec.encoding.pipeline import TaskRunner

_STORE_BYTES = 512 << 20  # of objects in memory on a machine where Ray is started; others go to disk
_CONNECT_S = 5.0
_TASK_CORES = 2  # a fit is hardly faster with more


class RayCluster(Executor):
    """Runs tasks on a Ray cluster, from its start or connection until it is closed.

    Args:
        address: of the cluster; ``auto`` for the one that this machine is a part of, ``local`` starts one here.
        count: tasks at once; None for as many as the cores suit.
        on_gpu: give each task a GPU where there are some.
        observer: told of the notes of tasks.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """

    is_remote = True

    def __init__(self, address: str, count: int | None, on_gpu: bool, observer: Observer):
        self._ray, self._observer = _connected(address), observer
        resources = self._ray.cluster_resources()
        cores = max(1, int(resources.get("CPU", 1)))
        self.slots = count or max(1, cores // _TASK_CORES)
        self._threads = max(1, cores // self.slots)
        options = {"num_cpus": self._threads, "num_gpus": int(on_gpu and bool(resources.get("GPU"))), "max_retries": 0}
        self._run = self._ray.remote(_run).options(**options)
        self._running: dict[Any, Hashable] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    def submit(self, key: Hashable, kind: str, arguments: tuple[Any, ...]) -> None:
        self._running[self._run.remote(self._threads, kind, arguments)] = key

    def next_done(self, within_s: float) -> Done | None:
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=within_s)
        if not ended:
            return None
        key = self._running.pop(ended[0])
        try:
            value, error, notes = self._ray.get(ended[0])
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.OutOfMemoryError):
            return Done(key, error=WorkerLostError())
        for text in notes:
            self._observer.note(text)
        return Done(key, value, error)

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._ray.shutdown()

    def unseen(self, paths: Sequence[str]) -> dict[str, str]:
        """Files or folders that a machine of the cluster does not see as this one does, each with the reason."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        sizes = [(path, _size_of(path)) for path in paths]
        unseen: dict[str, str] = {}
        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0)]
        looks = [
            self._ray.remote(missing)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(sizes)
            for node in nodes
        ]
        for node, look in zip(nodes, looks, strict=True):
            for path in self._ray.get(look):
                machine = node["NodeManagerAddress"]
                why = f"the machine {machine} does not see it, or another file; all must find it under this name"
                unseen.setdefault(path, f"{path}: {why}")
        return unseen


def _connected(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray needs Ray (pip install 'nervcodec[ray]')") from None
    settings: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    if address == "local":
        settings |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        _require_listener(address)
        ray.init(address=address, **settings)
    except (ConnectionError, RuntimeError, ValueError, OSError, OverflowError) as error:
        token = "; one with tokens wants RAY_AUTH_MODE=token here"
        raise ConfigError(f"no Ray cluster at {address} ({str(error).splitlines()[0][:160]}){token}") from None
    return ray


def _require_listener(address: str) -> None:
    """Raise OSError or OverflowError where nobody can be listening: Ray itself tries for up to twelve minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()


# ------------------------------------------------------------------ on a machine of the cluster


class _Notes(Observer):
    """Keeps the notes of a task."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@cache
def _runner() -> tuple[TaskRunner, _Notes]:
    """Of this process, for all of its tasks."""
    from nervcodec.encoding.pipeline import TaskRunner

    observer = _Notes()
    return TaskRunner(observer, seeks=True), observer


def _run(threads: int, kind: str, arguments: tuple[Any, ...]) -> tuple[Any, Exception | None, list[str]]:
    """The result of a task, its error, and its notes."""
    from nervcodec.device import set_threads

    set_threads(threads)
    runner, observer = _runner()
    observer.notes = []
    try:
        return runner.run(kind, *arguments), None, observer.notes
    except Exception as error:
        return None, error, observer.notes


def missing(sources: Sequence[tuple[str, int]]) -> list[str]:
    """Which of some sources, each an absolute path and its size, this machine does not see as they are."""
    return [path for path, size in sources if _size_of(path) != size]


def _size_of(path: str) -> int:
    """Bytes of a file; the number of files in a folder; -1 for what is not there."""
    try:
        return len(os.listdir(path)) if os.path.isdir(path) else os.stat(path).st_size
    except OSError:
        return -1
