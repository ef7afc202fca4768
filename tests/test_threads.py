# SPDX-License-Identifier: MIT
"""Items taken from an iterator in a background thread."""

import threading
import time

import pytest

from nervcodec.errors import VideoError
from nervcodec.media import decoder
from nervcodec.media.source import scan
from nervcodec.threads import StalledError, read_ahead


def count_to(end, taken, closed):
    try:
        for number in range(end):
            taken.append(number)
            yield number
    finally:
        closed.append(threading.current_thread())


@pytest.mark.parametrize("ahead", [1, 3])
def test_all_items_in_order(ahead):
    closed = []
    assert list(read_ahead(count_to(100, [], closed), ahead)) == list(range(100))
    assert closed[0] is not threading.current_thread()
    assert list(read_ahead(iter(()), ahead)) == []


def test_read_ahead_is_bounded():
    taken = []
    items = read_ahead(count_to(100, taken, []), 3)
    next(items)
    time.sleep(0.2)
    assert len(taken) <= 6
    items.close()


@pytest.mark.parametrize("ahead", [1, 3])
def test_closed_early_the_iterator_is_closed_and_its_thread_ends(ahead):
    before, closed = threading.active_count(), []
    for number in range(5):
        items = read_ahead(count_to(100, [], closed), ahead)
        for _ in range(number):
            next(items)
        items.close()
    assert threading.active_count() == before
    assert len(closed) == 4  # one was never begun


def test_an_error_is_raised_in_the_consumer():
    def fails():
        yield 1
        raise KeyError("two")

    items = read_ahead(fails(), 4)
    assert next(items) == 1
    with pytest.raises(KeyError, match="two"):
        next(items)


def test_a_stalled_iterator_is_given_up():
    release = threading.Event()

    def stalls():
        yield 1
        release.wait(20)
        yield 2

    items = read_ahead(stalls(), 4, timeout_s=0.1)
    assert next(items) == 1
    with pytest.raises(StalledError):
        next(items)
    release.set()


def test_a_source_without_a_frame_is_refused(carphone, monkeypatch):
    """One line, and no waiting for a decoder that spins."""
    release, decoded = threading.Event(), decoder.Decoder._decoded

    def stalls(self, *arguments):
        for number, frame in enumerate(decoded(self, *arguments)):
            if number == 20:
                release.wait(20)
            yield frame

    monkeypatch.setattr(decoder.Decoder, "_decoded", stalls)
    monkeypatch.setattr(decoder, "STALL_TIMEOUT_S", 0.5)
    begun = time.monotonic()
    with pytest.raises(VideoError, match=r"carphone_pristine.mp4: gave no frame for 0.5 s$"):
        scan(carphone)
    assert time.monotonic() - begun < 10
    release.set()
