# SPDX-License-Identifier: MIT
"""Many viewers at once, viewers who leave, and the end."""

import http.client
import random
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sites import LAPPED, OTHER, serving
from test_stills import pixels

import nervcodec

VIEWERS, EACH = 20, 12


@pytest.fixture
def place(tmp_path, layered_nerv):
    """Two containers that are networks alone, and one with a base layer."""
    shutil.copy(LAPPED, tmp_path / "lapped.nerv")
    shutil.copy(OTHER, tmp_path / "other.nerv")
    shutil.copy(layered_nerv, tmp_path / "footage.nerv")
    return tmp_path


def test_twenty_viewers_scrub_and_each_answer_is_right(place):
    paths = ["lapped.nerv", "other.nerv", "footage.nerv"]

    def viewer(seed: int) -> int:
        """Asks on one connection, as a browser does."""
        chance, right = random.Random(seed), 0
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
        for _ in range(EACH):
            path = chance.choice(paths)
            number = chance.randrange(len(wanted[path]))
            connection.request("GET", f"/frame/{path}/{number}?format=png")
            response = connection.getresponse()
            assert response.status == 200
            right += bool((pixels(response.read()) == wanted[path][number]).all())
        connection.close()
        return right

    with serving(place) as site, ThreadPoolExecutor(VIEWERS) as viewers:
        wanted = {}
        for path in paths:
            with nervcodec.open(place / path) as video:
                wanted[path] = list(video)
        assert list(viewers.map(viewer, range(VIEWERS))) == [EACH] * VIEWERS
        assert not site.notes


def leave(site, address: str) -> None:
    """Ask, and hang up before the answer."""
    with socket.create_connection(("127.0.0.1", site.port)) as plug:
        plug.sendall(f"GET {address} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        time.sleep(0.02)


def test_viewers_who_leave_are_not_worked_for(place, monkeypatch):
    """Thirty ask for different frames and leave while the first is decoded."""
    called, hold = [], threading.Event()
    with serving(place) as site:
        call = site.state.media.worker.call

        def slow(*arguments):
            called.append(arguments)
            hold.wait(10)
            return call(*arguments)

        monkeypatch.setattr(site.state.media.worker, "call", slow)
        for number in range(15):
            for name in ("lapped", "other"):
                leave(site, f"/frame/{name}.nerv/{number}")
        time.sleep(0.1)
        hold.set()
        site.right("/frame/footage.nerv/7")
        assert len(called) < 10
        assert not site.notes


def test_one_who_goes_backwards_through_a_base_layer(place):
    """Frame by frame from the end, which a decoder cannot do."""
    with serving(place) as site, nervcodec.open(place / "footage.nerv") as video:
        for number in range(59, 40, -1):
            reply = site.right(f"/frame/footage.nerv/{number}?format=png")
            np.testing.assert_array_equal(pixels(reply.body), video[number])


def test_an_error_of_ours_is_one_line(place, monkeypatch):
    def wrong(*_arguments):
        raise ZeroDivisionError("by none")

    with serving(place) as site:
        monkeypatch.setattr(site.state.media.worker, "call", wrong)
        reply = site.ask("/frame/lapped.nerv/0")
        assert (reply.status, reply.error) == (500, "internal error: ZeroDivisionError")
        assert site.notes == ["/frame/lapped.nerv/0: internal error: ZeroDivisionError: by none"]
        assert site.ask("/api/files").status == 200


def test_it_ends_with_connections_open(place):
    with serving(place) as site:
        idle = socket.create_connection(("127.0.0.1", site.port))
        half = socket.create_connection(("127.0.0.1", site.port))
        half.sendall(b"GET /api/files HTTP/1.1\r\n")
        busy = socket.create_connection(("127.0.0.1", site.port))
        busy.sendall(b"GET /media/lapped.nerv.mp4?from=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.05)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5  # two seconds on an idle machine
    for plug in (idle, half, busy):
        plug.close()
