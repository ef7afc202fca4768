# SPDX-License-Identifier: MIT
"""Work on Ray: on the cores of this machine, or on the machines of a cluster. The only place that imports it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nervcodec.errors import ConfigError
from nervcodec.jobs.work import look, size_of

if TYPE_CHECKING:
    from ray import ObjectRef

_RETRIES = 3  # of a task whose worker dies
_STORE_BYTES = 512 << 20  # of objects in memory on this machine, at most; what is more goes to disk
_KNOCK_S = 5.0
_USUAL_THREADS = 2  # of a task on a cluster: a fit is hardly faster with more


@dataclass(frozen=True)
class Workers:
    """Where tasks run.

    Attributes:
        count: how many at once; None for as many as suit the cores.
        address: of a Ray cluster, or ``auto`` for the one that runs on this machine; None starts one here.
    """

    count: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ConfigError("workers must be 1 or more")

    @classmethod
    def of(cls, count: int | None, address: str | None) -> Workers | None:
        """As they were asked for; None where none were.

        Raises:
            ConfigError: fewer than one.
        """
        return None if count is None and address is None else cls(count, address)


class WorkerLostError(Exception):
    """The worker of a task died, and so did those that it was given to again."""


class Cluster:
    """A running Ray, and the tasks that were given to it.

    Attributes:
        slots: tasks that run at once.
        threads: of each.
        is_elsewhere: whether tasks may run on other machines.
    """

    def __init__(self, workers: Workers, ray: Any, on_gpu: bool = True):
        self._ray, self.is_elsewhere = ray, workers.address is not None
        resources = ray.cluster_resources()
        cores = max(1, int(resources.get("CPU", 1)))
        if workers.count is None:
            self.slots = max(1, cores // _USUAL_THREADS) if self.is_elsewhere else cores
        else:
            self.slots = workers.count
        self.threads = max(1, cores // self.slots)
        self._gpus = 1 if on_gpu and resources.get("GPU", 0) else 0
        self._running: dict[ObjectRef, object] = {}
        self._known: dict[Callable[..., Any], Any] = {}

    @property
    def running(self) -> int:
        """Tasks that were given to it and are not done."""
        return len(self._running)

    def put(self, value: object) -> ObjectRef:
        """Keep something that many tasks need; a task that is given what this returns gets the thing itself."""
        return self._ray.put(value)

    def submit(self, name: object, task: Callable[..., Any], *arguments: object) -> None:
        """Give it a task, which runs once there is a worker for it.

        Args:
            name: by which :meth:`next_done` gives its result.
            task: a function of a module; it is called with the number of threads it may use, then the arguments.
            arguments: plain data, or what :meth:`put` gave.
        """
        if task not in self._known:  # a function is sent to workers once
            options = {"num_cpus": self.threads, "num_gpus": self._gpus, "max_retries": _RETRIES}
            self._known[task] = self._ray.remote(task).options(**options)
        self._running[self._known[task].remote(self.threads, *arguments)] = name

    def next_done(self, within_s: float) -> tuple[Any, Any] | None:
        """The name and the result of a task that is done; None where none is within so many seconds.

        Raises:
            WorkerLostError: its workers died; its first argument is the task's name.
        """
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=within_s)
        if not done:
            return None
        name = self._running.pop(done[0])
        try:
            return name, self._ray.get(done[0])
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.OutOfMemoryError) as error:
            raise WorkerLostError(name) from error

    def on_each_machine(self, task: Callable[..., Any], *arguments: object) -> list[tuple[str, Any]]:
        """Run a task once on every machine; returns their addresses and results."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0)]
        on_each = [
            self._ray.remote(task)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(*arguments)
            for node in nodes
        ]
        return [(node["NodeManagerAddress"], self._ray.get(ref)) for node, ref in zip(nodes, on_each, strict=True)]

    def cancel(self) -> None:
        """Stop what runs, and forget it."""
        for ref in self._running:
            self._ray.cancel(ref, force=True)
        self._running.clear()


@contextmanager
def started(workers: Workers, on_gpu: bool = True) -> Iterator[Cluster]:
    """A cluster to work on; what was started for it ends with it.

    Args:
        workers: where.
        on_gpu: give each task a GPU where there are some.

    Raises:
        ConfigError: Ray is not installed, there is no cluster at the address, or it cannot be started here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError("--workers and --ray need Ray (pip install 'nervcodec[ray]')") from None
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    try:
        if workers.address is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            count = max(cores, workers.count or 1)
            ray.init(
                address="local", num_cpus=count, include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet
            )
        else:
            _knock(workers.address)
            ray.init(address=workers.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError, OverflowError) as error:
        where = f"at {workers.address}" if workers.address else "on this machine"
        token = "; one with tokens wants RAY_AUTH_MODE=token here" if workers.address else ""
        raise ConfigError(f"no Ray cluster {where} ({str(error).splitlines()[0][:160]}){token}") from None
    try:
        yield Cluster(workers, ray, on_gpu)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError or OverflowError where nobody can be listening: Ray itself tries for up to twelve minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()


def unseen(cluster: Cluster, paths: Sequence[str]) -> dict[str, str]:
    """Which of some files or folders a machine of a cluster does not see as this one does, and why not, in words."""
    found: dict[str, str] = {}
    for machine, missing in cluster.on_each_machine(look, [(path, size_of(path)) for path in paths]):
        for path in missing:
            why = f"the machine {machine} does not see it, or another file; all must find it under this name"
            found.setdefault(path, f"{path}: {why}")
    return found
