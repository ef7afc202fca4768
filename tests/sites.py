# SPDX-License-Identifier: MIT
"""Real servers for tests of the page, and containers to be served."""

import contextlib
import html
import http.client
import json
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from nervcodec.formats.container import Container, Writer

GOLDEN = Path(__file__).parent / "golden"
GRID, LAPPED, OTHER, MUTE = (GOLDEN / f"version3_{name}.nerv" for name in ("grid", "lapped", "pe", "plain"))
TIMES_S = np.array([0, 0.04, 0.08, 0.12, 1.7, 1.71, 1.72, 1.75, 1.8, 1.9, 2.0, 2.1, 2.2, 2.3, 2.4])
VARIABLE_END_S, SOUND_S = 3.2, 2.5


class Reply:
    """What a server answered."""

    def __init__(self, response: http.client.HTTPResponse):
        self.status, self.headers, self.body = response.status, dict(response.getheaders()), response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of an error: JSON below ``/api``, a line of text or a page elsewhere."""
        kind, text = self.headers["content-type"], self.body.decode()
        if kind == "application/json":
            (text,) = [json.loads(text)["error"]]
        elif kind.startswith("text/html"):
            text = html.unescape(text.partition('<p class="error">')[2].partition("</p>")[0])
        return text


class Site:
    """A server to be asked."""

    def __init__(self, place: Path, port: int, notes: list, state):
        self.place, self.port, self.notes, self.state = place, port, notes, state

    def ask(self, address: str, method: str = "GET", **headers: str) -> Reply:
        """One request on a connection of its own; the address goes out as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, address, headers=headers)
            return Reply(connection.getresponse())

    def right(self, address: str, **headers: str) -> Reply:
        """The same, which has to succeed."""
        reply = self.ask(address, **headers)
        assert reply.status == 200, (address, reply.status, reply.body[:200])
        return reply


@contextlib.contextmanager
def serving(place: Path, around=lambda app: app, root_path: str = "", names: Collection[str] = ()):
    """A server in a thread; ``around`` may put something around the application."""
    from nervcodec.serve.app import make_app
    from nervcodec.serve.run import Server, host_names, listening
    from nervcodec.serve.state import AppState

    notes: list[str] = []
    with listening("127.0.0.1", 0) as made:
        state = AppState(place)
        server = Server(around(make_app(state, host_names("127.0.0.1", names), notes.append, root_path)), state.stop)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [made]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield Site(place, made.getsockname()[1], notes, state)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def changed(source: Path, target: Path, more=None, **video) -> Path:
    """A copy with other facts of the video, and other arrays beside those it has."""
    with Container.open(source) as opened, Writer(target) as writer:
        for name in opened.header.tensors:
            writer.add(name, opened.array(name), opened.header.tensors[name].code)
        for name, array in (more or {}).items():
            writer.add(name, array, None)
        facts = replace(opened.header.video, **video)
        writer.finish(replace(opened.header, video=facts, tensors=writer.tensors))
    return target


def spoilt(source: Path, target: Path) -> Path:
    """A copy whose header is whole and whose weights are not."""
    data = bytearray(source.read_bytes())
    data[-200] ^= 255
    target.write_bytes(data)
    return target


def sound(ffmpeg, folder: Path, *coding: str) -> np.ndarray:
    """Packets of a tone of 440 Hz in a Matroska file."""
    out = folder / "tone.mka"
    ffmpeg("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={SOUND_S}", *coding, out)
    return np.fromfile(out, np.uint8)
