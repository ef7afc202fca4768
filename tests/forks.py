# SPDX-License-Identifier: MIT
"""The command in processes of its own that need not import torch each time.

A server imports the large packages once (none of ours), forks for every command, and the fork runs the command's
installed script with its own folder, environment and streams. What an interpreter reads at its start (``PYTHON...``,
``LC_...``) is the server's: tests about that start a new interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = str(Path(sys.executable).with_name("nervcodec"))
_MESSAGE = 1 << 20
_LONGEST_S = 300.0  # of a command


class Forks:
    """Starts any number of commands at a time."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, __file__, str(theirs.fileno())]
        self._server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def start(self, arguments: list[str], cwd: Path, largest_file: int | None = None) -> Forked:
        """The command with these arguments, in the environment as it is now.

        Args:
            arguments: of the command.
            cwd: its folder.
            largest_file: bytes that no file may exceed, as on a full disk; None for no such limit.
        """
        request = {"arguments": arguments, "cwd": str(cwd), "environment": dict(os.environ), "limit": largest_file}
        return Forked(self._channel, request)

    def run(self, arguments: list[str], cwd: Path, binary: bool = False) -> subprocess.CompletedProcess:
        """The same to its end; its output as text, or as bytes."""
        child = self.start(arguments, cwd)
        child.wait(_LONGEST_S)
        out, err = child.printed() if binary else child.communicate()
        return subprocess.CompletedProcess([SCRIPT, *arguments], child.returncode, out, err)

    def close(self) -> None:
        """End the server."""
        self._channel.close()
        self._server.wait(60)


class Forked:
    """A command under way, with what of :class:`subprocess.Popen` the tests need.

    Attributes:
        returncode: None before :meth:`wait` saw its end.
    """

    def __init__(self, channel: socket.socket, request: dict):
        self.returncode: int | None = None
        self._replies, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._out, self._err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115 - printed() closes them
        with open(os.devnull, "rb") as nothing, theirs:
            files = [nothing.fileno(), self._out.fileno(), self._err.fileno(), theirs.fileno()]
            socket.send_fds(channel, [json.dumps(request).encode()], files)
        self._replies.settimeout(_LONGEST_S)
        self._number = int(self._replies.recv(_MESSAGE))

    def wait(self, seconds: float) -> int:
        """Its exit status, minus the signal's number where one ended it.

        Raises:
            TimeoutError: it is not over by then.
        """
        if self.returncode is None:
            self._replies.settimeout(seconds)
            self.returncode = int(self._replies.recv(_MESSAGE))
            self._replies.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing where it is over."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._number, number)

    def communicate(self, seconds: float = _LONGEST_S) -> tuple[str, str]:
        """What it printed, and what on standard error, once it is over."""
        self.wait(seconds)
        out, err = (part.decode().replace("\r\n", "\n") for part in self.printed())
        return out, err

    def printed(self) -> tuple[bytes, bytes]:
        """The same as bytes; to be had once."""
        read = []
        for stream in (self._out, self._err):
            with stream:
                stream.seek(0)
                read.append(stream.read())
        return read[0], read[1]


def _serve(channel: socket.socket) -> None:
    import efficientnet_lite_pytorch  # noqa: F401
    import open_clip  # noqa: F401
    import pytorch_msssim  # noqa: F401
    import rich.progress  # noqa: F401
    import torch  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who watch over a command
    while True:
        message, files, _, _ = socket.recv_fds(channel, _MESSAGE, 4)
        if not message:
            return
        if not os.fork():
            channel.close()
            _watch(json.loads(message), files)
        for file in files:
            os.close(file)


def _watch(request: dict, files: list[int]) -> None:
    """Start a command and tell its number, then how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, reply = files
    child = os.fork()
    if not child:
        os.close(reply)
        _become(request, streams)
    for stream in streams:
        os.close(stream)
    with socket.socket(fileno=reply) as replies:
        replies.send(str(child).encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(BrokenPipeError):  # whoever started it does not look any more
            replies.send(str(status).encode())
    os._exit(0)


def _become(request: dict, files: list[int]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace", buffering=1)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    if request["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], request["limit"]))
    sys.argv = [SCRIPT, *request["arguments"]]
    status = 0
    try:
        runpy.run_path(SCRIPT, run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
