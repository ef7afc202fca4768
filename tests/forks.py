# SPDX-License-Identifier: MIT
"""The command in processes of its own that need not import torch each time.

A server imports the large packages once (none of ours), forks for every command, and the fork runs the command's
installed script with its own folder, environment and streams. What an interpreter reads at its start (``PYTHON...``,
``LC_...``) is the server's: tests about that start a new interpreter.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = str(Path(sys.executable).with_name("nervcodec"))
_MESSAGE = 1 << 20
_LONGEST_S = 300.0  # of a command


class Forks:
    """Runs commands, one after the other."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, __file__, str(theirs.fileno())]
        self._server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._channel.settimeout(_LONGEST_S)

    def run(self, arguments: list[str], cwd: Path, binary: bool = False) -> subprocess.CompletedProcess:
        """The command with these arguments; its output as text, or as bytes."""
        request = json.dumps({"arguments": arguments, "cwd": str(cwd), "environment": dict(os.environ)}).encode()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as nothing:
            socket.send_fds(self._channel, [request], [nothing.fileno(), out.fileno(), err.fileno()])
            status = int(self._channel.recv(_MESSAGE))  # a TimeoutError where it hangs
            printed = []
            for stream in (out, err):
                stream.seek(0)
                printed.append(stream.read() if binary else stream.read().decode().replace("\r\n", "\n"))
        return subprocess.CompletedProcess([SCRIPT, *arguments], status, *printed)

    def close(self) -> None:
        """End the server."""
        self._channel.close()
        self._server.wait(60)


def _serve(channel: socket.socket) -> None:
    import efficientnet_lite_pytorch  # noqa: F401
    import open_clip  # noqa: F401
    import pytorch_msssim  # noqa: F401
    import rich.progress  # noqa: F401
    import torch  # noqa: F401

    while True:
        message, files, _, _ = socket.recv_fds(channel, _MESSAGE, 3)
        if not message:
            return
        child = os.fork()
        if not child:
            channel.close()
            _become(json.loads(message), files)
        for file in files:
            os.close(file)
        channel.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _become(request: dict, files: list[int]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace", buffering=1)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
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
