# SPDX-License-Identifier: MIT
"""The worker process: results, errors, crashes and stalls."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nervcodec.errors import ContainerError
from nervcodec.formats.container import read_header
from nervcodec.worker import Worker, WorkerLostError


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.close()


def test_results_and_errors(worker, tmp_path):
    assert worker.call(pow, 2, 10) == 1024
    with pytest.raises(ContainerError, match=r"a\.nerv"):
        worker.call(read_header, tmp_path / "a.nerv")
    pid = worker.pid
    assert pid != os.getpid()
    assert worker.call(os.getpid) == pid


def test_a_crash_ends_one_call(worker):
    before = worker.call(os.getpid)
    with pytest.raises(WorkerLostError, match="crashed"):
        worker.call(os._exit, 1)
    assert worker.call(os.getpid) != before


def test_a_killed_process_ends_one_call(worker):
    pid = worker.call(os.getpid)
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(WorkerLostError, match="crashed"):
        worker.call(time.sleep, 60)
    assert worker.call(pow, 2, 3) == 8


def test_a_stall_ends_one_call(worker):
    pid = worker.call(os.getpid)
    with pytest.raises(WorkerLostError, match=r"did not answer for 0\.2 s"):
        worker.call(time.sleep, 60, timeout_s=0.2)
    assert worker.call(os.getpid) != pid


def test_closing_ends_a_call_and_refuses_others(worker):
    worker.call(os.getpid)
    threading.Timer(0.3, worker.close).start()
    with pytest.raises(WorkerLostError):
        worker.call(time.sleep, 60)
    with pytest.raises(WorkerLostError, match="shutting down"):
        worker.call(os.getpid)


PARENT = """
import os, sys
from nervcodec.worker import Worker
if __name__ == "__main__":
    print(Worker().call(os.getpid), flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_it_ends_with_its_parent(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    done = subprocess.run([sys.executable, tmp_path / "parent.py"], capture_output=True, text=True, timeout=60)
    end, pid = time.monotonic() + 10, int(done.stdout)
    while is_running(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
