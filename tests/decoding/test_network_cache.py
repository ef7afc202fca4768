# SPDX-License-Identifier: MIT
"""Networks of several files in one bounded pool, and one open video that eight threads use at once."""

import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import nervcodec
from nervcodec.decoding.networks import NetworkCache
from nervcodec.errors import ContainerError

THREADS = 8


def network(values: int) -> nn.Module:
    return nn.Linear(values, 1, bias=False)  # four bytes a value


def test_the_least_recently_used_network_is_evicted_first():
    cache, built = NetworkCache(1000), []

    def ask(name: str) -> nn.Module:
        return cache.get("file", name, lambda: built.append(name) or network(100))

    first = ask("a")
    ask("b")
    assert ask("a") is first
    ask("c")  # b has to go
    assert cache.used_bytes == 800
    assert ask("a") is first
    ask("b")
    assert built == ["a", "b", "c", "b"]


def test_a_network_above_the_limit_is_kept_alone():
    cache = NetworkCache(1000)
    cache.get("file", "small", lambda: network(10))
    large = cache.get("file", "large", lambda: network(10_000))
    assert cache.used_bytes == 40_000
    assert cache.get("file", "large", lambda: network(1)) is large
    cache.get("file", "small", lambda: network(10))
    assert cache.used_bytes == 40


def test_a_failed_build_is_not_cached():
    cache = NetworkCache(1000)

    def fail() -> nn.Module:
        raise ContainerError("damaged")

    with pytest.raises(ContainerError):
        cache.get("file", "a", fail)
    assert cache.used_bytes == 0
    assert cache.get("file", "a", lambda: network(1)).in_features == 1


def test_concurrent_requests_build_a_network_once():
    cache, built, together = NetworkCache(1 << 20), [], threading.Barrier(THREADS)

    def ask(_number: int) -> nn.Module:
        together.wait()
        return cache.get("file", "a", lambda: built.append(1) or network(50))

    with ThreadPoolExecutor(THREADS) as threads:
        found = list(threads.map(ask, range(THREADS)))
    assert len({id(one) for one in found}) == 1
    assert len(built) == 1


def test_a_file_dropped_during_a_build_leaves_nothing():
    cache = NetworkCache(1000)

    def slowly() -> nn.Module:
        cache.drop("file")
        return network(10)

    cache.get("file", "a", slowly)
    assert cache.used_bytes == 0


def test_files_share_one_cache_and_leave_it_when_closed(small_nerv):
    mine = NetworkCache()
    one, other = (nervcodec.open(small_nerv, device="cpu", cache=mine) for _ in range(2))
    assert one[0].shape == other[0].shape
    both = mine.used_bytes
    one.close()
    assert 0 < mine.used_bytes < both
    del other  # without being closed
    gc.collect()
    assert mine.used_bytes == 0


@pytest.mark.parametrize("limit_bytes", [0, 1 << 30])
def test_eight_threads_on_one_file(small_nerv, limit_bytes):
    """Each gets what it would get alone, also where networks are let go of all the time."""
    alone = nervcodec.open(small_nerv, device="cpu", precision="fp32")
    vectors = alone.embeddings()
    numbers = sorted(random.Random(5).sample(range(len(alone)), 12))
    frames = {number: alone[number] for number in numbers}
    patches = {number: alone.patch(number, 1, 2) for number in numbers}
    video = nervcodec.open(small_nerv, device="cpu", precision="fp32", cache=NetworkCache(limit_bytes))

    def use(seed: int) -> int:
        mine = random.Random(seed)
        for _ in range(6):
            number = mine.choice(numbers)
            assert np.array_equal(video[number], frames[number])
            number = mine.choice(numbers)
            assert np.array_equal(video.patch(number, 1, 2), patches[number])
            number = mine.choice(numbers)
            assert np.allclose(video.embeddings([number])[0], vectors[number], atol=1e-5)
        return seed

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(use, range(THREADS))) == list(range(THREADS))


def test_a_video_closed_by_another_thread_is_reported(small_nerv):
    video = nervcodec.open(small_nerv, device="cpu")
    begun = threading.Event()

    def use() -> None:
        for _ in video.frames(list(range(50)) * 50):
            begun.set()

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(use)
        begun.wait(60)
        video.close()
        with pytest.raises(ContainerError, match="closed"):
            waiting.result(60)


def test_networks_are_indexed_by_segment(small_nerv):
    video = nervcodec.open(small_nerv, device="cpu")
    assert video.network(0) is video.network(0)
    assert video.network(-1) is video.network(1)
    assert isinstance(video.network(0), torch.nn.Module)
    with pytest.raises(IndexError, match="segment 2"):
        video.network(2)
