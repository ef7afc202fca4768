# SPDX-License-Identifier: MIT
"""A worker process for code that may crash, hang or run out of memory. Torch-free."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

from nervcodec.errors import NervError
from nervcodec.events import EvaluationEvent, Observer, StepEvent
from nervcodec.threads import abandoned_readers

SILENT_S = 60.0  # without a heartbeat, after which a worker is replaced
CALL_TIMEOUT_S = 120.0
_HEARTBEAT_S = 5.0
_EXIT_S = 5.0  # from the end of a worker's pipe to that of its process
_Value = TypeVar("_Value")
_Handler = Callable[..., Any]


class WorkerLostError(NervError):
    """The worker process died or did not respond before it returned."""


class Result(NamedTuple):
    """What a request returned or raised."""

    value: Any = None
    error: BaseException | None = None


def call_function(_observer: Observer) -> _Handler:
    """The default ``make_handler``: a request is a function and its arguments."""
    return lambda function, *arguments: function(*arguments)


class Worker:
    """A spawned process that handles one request at a time. It starts with its first request, and again after it ended.

    Use either :meth:`call`, from any thread, or :meth:`submit` and :meth:`receive`. Requests and results are pickled.
    It is no pool of ``concurrent.futures``, whose semaphores leak when processes are killed.

    Args:
        make_handler: called in the process with an observer that reports to the one here; returns the function that
            handles requests. Importable.

    Attributes:
        observer: receives the progress of the request.
        pipe: to the process.
        silent_s: time without a heartbeat, counted by the caller of :meth:`receive`.
    """

    pipe: Connection

    def __init__(self, make_handler: Callable[[Observer], _Handler] = call_function):
        self.observer, self._make_handler = Observer(), make_handler
        self._process: BaseProcess | None = None
        self._lock = threading.Lock()
        self._is_stopping = self._is_closed = self._has_started = False
        self.silent_s = 0.0

    @property
    def pid(self) -> int | None:
        """Number of the process; None where it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def is_silent(self) -> bool:
        """Whether a process that has started does not respond."""
        return self._has_started and self.silent_s > SILENT_S

    def call(self, function: Callable[..., _Value], *arguments: Any, timeout_s: float = CALL_TIMEOUT_S) -> _Value:
        """The result of ``function(*arguments)``.

        Raises:
            WorkerLostError: the process crashed, or exceeded ``timeout_s`` and was killed.
            Exception: whatever the function raised.
        """
        with self._lock:
            self.submit(function, *arguments)
            deadline, result = time.monotonic() + timeout_s, None
            while result is None:
                if not self.pipe.poll(max(0.0, deadline - time.monotonic())):
                    self.kill()
                    raise WorkerLostError(f"a worker process did not answer for {timeout_s:g} s; try again")
                result = self.receive()
        if result.error is not None:
            raise result.error
        return result.value

    def submit(self, *request: Any) -> None:
        """Send a request.

        Raises:
            NervError: no process can be started.
            WorkerLostError: the worker is closed.
        """
        if self._process is not None and not self._process.is_alive():
            self.kill()
        if self._process is None and not self._is_closed:
            self._start()
        if self._is_closed:
            self.kill()
            raise WorkerLostError("the server is shutting down")
        self.silent_s = 0.0
        with contextlib.suppress(OSError):  # it died: the next message from it is the end of the pipe
            self.pipe.send(request)

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, child_pipe = spawn.Pipe()
        process = spawn.Process(target=_work, args=(child_pipe, self._make_handler))
        try:
            with _sigint_blocked():
                process.start()
        except OSError as error:
            self.pipe.close()
            raise NervError(f"a worker process cannot be started: {sys.executable} ({error.strerror})") from None
        finally:
            child_pipe.close()
        self._process, self._has_started = process, False
        atexit.register(self.kill)  # runs before multiprocessing waits for its processes
        if self._is_stopping:
            self.request_stop()

    def receive(self) -> Result | None:
        """Handle all messages of the process; the result of the request if it is among them.

        Raises:
            NervError: the process failed to start.
        """
        try:
            while self.pipe.poll():
                name, arguments = self.pipe.recv()
                self._has_started, self.silent_s = True, 0.0
                if name == "result":
                    return self._result(*arguments)
                if name != "heartbeat":
                    getattr(self.observer, name)(*arguments)
        except (EOFError, OSError):
            return self.lost()
        return None

    def _result(self, value: Any, error: Exception | None, details: str, is_stuck: bool) -> Result:
        if error is not None:
            error.__cause__ = RuntimeError(details)
        if is_stuck:
            self.kill()
        return Result(value, error)

    def lost(self) -> Result:
        """The result of a request whose process died or does not respond; the process is killed.

        Raises:
            NervError: the process failed to start.
        """
        assert self._process is not None
        if self.silent_s <= SILENT_S:
            self._process.join(_EXIT_S)
        status = self._process.exitcode
        self.kill()
        if not self._has_started and status is not None and status > 0:
            raise NervError(f"a worker process cannot be started: {sys.executable} (exit status {status})")
        return Result(error=WorkerLostError("a worker process crashed; try again"))

    def request_stop(self) -> None:
        """Make ``stop_requested()`` of the observer in the process return True, for this request and later ones."""
        self._is_stopping = True
        if self._process is not None:
            with contextlib.suppress(OSError):  # it died
                self.pipe.send(None)

    def kill(self) -> None:
        """Kill the process. Not while another thread uses this worker."""
        atexit.unregister(self.kill)
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self.pipe.close()
        self._process = None

    def close(self) -> None:
        """Kill the process from any thread; a call under way and later ones raise WorkerLostError."""
        self._is_closed = True
        if (process := self._process) is not None:
            with contextlib.suppress(ValueError):  # closed meanwhile
                process.kill()
        with self._lock:
            self.kill()


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Around the start of a worker, which inherits this: Ctrl-C in a terminal goes to all processes."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ------------------------------------------------------------------ in the worker


class _PipeObserver(Observer):
    """Reports to the parent process, and receives its requests in a thread.

    Attributes:
        requests: received and not handled yet.
    """

    def __init__(self, pipe: Connection):
        self._pipe, self._sending, self._stop = pipe, threading.Lock(), threading.Event()
        self.requests: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Receive requests, and None as a request to stop; end this process when the parent ends."""
        try:
            while True:
                self.send("heartbeat")
                if self._pipe.poll(_HEARTBEAT_S):
                    if (request := self._pipe.recv()) is None:
                        self._stop.set()
                    else:
                        self.requests.put(request)
        except (EOFError, OSError):
            os._exit(1)

    def send(self, name: str, *arguments: object) -> None:
        with self._sending, contextlib.suppress(OSError):  # the parent ended
            self._pipe.send((name, arguments))

    def begin_segment(self, number: int, count: int) -> None:
        self.send("begin_segment", number, count)

    def stage(self, name: str, total: int | None = None) -> None:
        self.send("stage", name, total)

    def partial_result_ready(self) -> None:
        self.send("partial_result_ready")

    def advance(self, count: int = 1) -> None:
        self.send("advance", count)

    def step(self, event: StepEvent) -> None:
        self.send("step", event)

    def evaluated(self, event: EvaluationEvent) -> None:
        self.send("evaluated", event)

    def note(self, text: str) -> None:
        self.send("note", text)

    def hint(self, text: str) -> None:
        self.send("hint", text)

    def stop_requested(self) -> bool:
        return self._stop.is_set()


def _work(pipe: Connection, make_handler: Callable[[Observer], _Handler]) -> None:
    """Handle requests until the parent ends. A terminal sends signals to all processes; the parent handles them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    observer, handler = _PipeObserver(pipe), None
    while True:
        request = observer.requests.get()
        value, error, details = None, None, ""
        try:
            handler = handler or make_handler(observer)
            value = handler(*request)
        except Exception as raised:
            error, details = _picklable(raised), traceback.format_exc()
        is_stuck = bool(abandoned_readers())
        try:
            observer.send("result", value, error, details, is_stuck)
        except Exception as unsent:  # what cannot be pickled
            observer.send("result", None, RuntimeError(repr(unsent)), details, is_stuck)
        del value, error, request


def _picklable(error: Exception) -> Exception:
    """The error, or its text where it cannot be pickled and unpickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
