# SPDX-License-Identifier: MIT
"""``nervcodec serve``, by the real entry point."""

import json
import shutil
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from nervcodec.cli import serve as command
from nervcodec.errors import ConfigError
from nervcodec.serve import run as run_module
from nervcodec.serve.run import addresses, host_names, listening

GOLDEN = Path(__file__).parents[1] / "golden"


def free_port() -> int:
    with listening("127.0.0.1", 0) as listener:
        return listener.getsockname()[1]


def ask(port: int, address: str) -> bytes:
    """A right answer, once there is somebody who answers."""
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{address}", timeout=60) as answer:
                return answer.read()
        except urllib.error.URLError:
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_its_address_answers_and_ends(forks, tmp_path, number):
    shutil.copy(GOLDEN / "version3_grid.nerv", tmp_path / "a.nerv")
    port = free_port()
    serving = forks.start(["serve", str(tmp_path), "--port", str(port)], tmp_path)
    listed = json.loads(ask(port, "/api/files"))
    assert [file["path"] for file in listed["files"]] == ["a.nerv"]
    assert ask(port, "/frame/a.nerv/3")
    with socket.create_connection(("127.0.0.1", port)) as idle, socket.create_connection(("127.0.0.1", port)) as busy:
        idle.sendall(b"GET /")
        busy.sendall(b"GET /media/a.nerv.mp4?from=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        serving.send_signal(number)
        serving.wait(30)
    out, err = serving.communicate()
    assert serving.returncode == 130
    assert out == f"http://127.0.0.1:{port}/ shows {tmp_path}; Ctrl-C ends it\n"
    assert err == "nervcodec: interrupted\n"


def test_a_port_that_is_taken(run, tmp_path):
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        result = run("serve", tmp_path, "--port", port)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"port {port} of 127.0.0.1 cannot be had" in result.stderr
    assert "--port" in result.stderr


def test_wrong_usage(run, tmp_path):
    assert run("serve", tmp_path / "none").returncode == 2
    assert run("serve", tmp_path, "--port", "70000").returncode == 2
    result = run("serve", tmp_path, "--host", "no.such.host.invalid")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    (tmp_path / "a.txt").write_text("x")
    result = run("serve", tmp_path / "a.txt")
    assert result.returncode == 1
    assert ".nerv" in result.stderr


def test_open_shows_the_page(monkeypatch, tmp_path):
    addresses_opened, served = [], []
    monkeypatch.setattr(command.webbrowser, "open", addresses_opened.append)
    monkeypatch.setattr(
        "nervcodec.serve.run.Server.run", lambda _self, sockets: served.append(sockets[0].getsockname())
    )
    result = CliRunner().invoke(command.serve, [str(tmp_path), "--port", "0", "--open"])
    (address,) = served
    assert addresses_opened == [f"http://127.0.0.1:{address[1]}/"]
    assert result.output.startswith(f"{addresses_opened[0]} shows ")
    assert isinstance(result.exception, SystemExit)  # of an interruption


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_a_missing_extra_is_named(monkeypatch, tmp_path, missing):
    for name in [name for name in sys.modules if name.startswith(("nervcodec.serve", missing))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    result = CliRunner().invoke(command.serve, [str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == f'serve needs {missing}; pip install "nervcodec[serve]"'


def test_addresses_and_names(monkeypatch):
    with listening("localhost", 0) as listener:
        port = listener.getsockname()[1]
        assert addresses(listener, "localhost") == (f"http://localhost:{port}/", None)
        assert addresses(listener, "127.0.0.1", "/a/") == (f"http://127.0.0.1:{port}/a/", None)
    with listening("0.0.0.0", 0) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(run_module, "_outer_address", lambda family: "192.168.1.7")
        assert addresses(listener, "0.0.0.0") == (f"http://127.0.0.1:{port}/", f"http://192.168.1.7:{port}/")
        monkeypatch.setattr(run_module, "_outer_address", lambda family: None)
        assert addresses(listener, "::") == (f"http://[::1]:{port}/", None)
    assert host_names("127.0.0.1", ["proxy.example"]) >= {"localhost", socket.gethostname(), "proxy.example"}
    assert "video.example" in host_names("video.example")
    with pytest.raises(ConfigError, match="no host here"):
        listening("no.such.host.invalid", 0)


def test_other_machines_can_open_it_by_address(forks, tmp_path):
    """The second line has an address of this machine that is reached from outside, where it has a network."""
    port = free_port()
    serving = forks.start(["serve", str(tmp_path), "--port", str(port), "--host", "0.0.0.0"], tmp_path)
    ask(port, "/")
    outer = run_module._outer_address(socket.AF_INET)
    if outer is not None:
        with urllib.request.urlopen(f"http://{outer}:{port}/", timeout=60) as answer:
            assert answer.status == 200
    serving.send_signal(signal.SIGINT)
    serving.wait(30)
    out, _ = serving.communicate()
    expected = [f"http://127.0.0.1:{port}/ shows {tmp_path}; Ctrl-C ends it"]
    assert out.splitlines() == expected + (
        [f"http://{outer}:{port}/ is its address for other machines"] if outer else []
    )
