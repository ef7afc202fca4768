# SPDX-License-Identifier: MIT
"""Functions called in another process, so that a decoder that crashes or stalls ends one call and not the server."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from nervcodec.errors import NervError

Result = TypeVar("Result")
STALL_TIMEOUT_S = 120.0  # without an answer after which a process is ended


class WorkerError(NervError):
    """The process ended before it answered."""


class Worker:
    """A process that runs one function at a time; it is started on first use, and again after it ended.

    Several threads may call it. Functions, arguments and results are pickled.

    Args:
        name: of the process.
    """

    def __init__(self, name: str):
        self._name, self._lock = name, threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """Number of the process; None where it does not run."""
        return None if self._process is None else self._process.pid

    def call(self, function: Callable[..., Result], *arguments: Any, timeout_s: float = STALL_TIMEOUT_S) -> Result:
        """The result of ``function(*arguments)``.

        Raises:
            WorkerError: the process ended, or did not answer for ``timeout_s`` seconds and was ended.
            Exception: whatever the function raised.
        """
        with self._lock:
            if self._is_closed:
                raise WorkerError("the server is shutting down")
            if self._process is None or not self._process.is_alive():
                self._start()
            assert self._process is not None
            assert self._pipe is not None
            reason = "it crashed"
            try:
                self._pipe.send((function, arguments))
                if self._pipe.poll(timeout_s):
                    result, error = self._pipe.recv()
                    if error is not None:
                        raise error
                    return result
                reason = f"it did not answer for {timeout_s:g} s"
            except (EOFError, OSError):
                pass
            self._process.kill()
            self._process.join()
            raise WorkerError(f"the process that decodes ended ({reason}); try again")

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        process = context.Process(target=_run, args=(other,), name=self._name, daemon=True)
        process.start()
        self._process = process
        other.close()
        if self._is_closed:  # meanwhile
            process.kill()

    def close(self) -> None:
        """End the process; a call under way raises WorkerError."""
        self._is_closed = True
        if self._process is not None:
            self._process.kill()


def _run(pipe: Connection) -> None:
    """Answer calls until the other end of the pipe is closed, as it is when the server ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments = pipe.recv()
            result, failure = None, None
            try:
                result = function(*arguments)
            except Exception as error:
                failure = _pickled(error)
            pipe.send((result, failure))


def _pickled(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
