# SPDX-License-Identifier: MIT
"""The executor: equal requests share one run, the queue is bounded, and work ends when its clients disconnect."""

import asyncio
import threading

import pytest

from nervcodec.serve import executor as executors
from nervcodec.serve.executor import ClientDisconnectedError, SingleFlightExecutor
from nervcodec.serve.limits import BusyError


async def never() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def executor():
    made = SingleFlightExecutor("test", 2)
    yield made
    made.close()
    made.wait()


def test_the_same_is_done_once(executor):
    done, begin = [], threading.Event()

    def work(_token):
        begin.wait(10)
        done.append(1)
        return b"answer"

    async def several():
        asking = [asyncio.ensure_future(executor.run("key", work, never)) for _ in range(20)]
        await asyncio.sleep(0.05)
        begin.set()
        return await asyncio.gather(*asking)

    assert asyncio.run(several()) == [b"answer"] * 20
    assert len(done) == 1


def test_errors_reach_all_and_are_not_kept(executor):
    done = []

    def work(_token):
        done.append(1)
        raise ValueError("no")

    async def several():
        return await asyncio.gather(*(executor.run("key", work, never) for _ in range(3)), return_exceptions=True)

    for _ in range(2):
        assert [str(error) for error in asyncio.run(several())] == ["no"] * 3
    assert 2 <= len(done) <= 6


def test_nothing_is_begun_for_those_who_went_away(executor):
    """Both threads are taken; of a hundred who ask for something else, all leave before a thread is free."""
    hold, begun = threading.Event(), []

    async def soon() -> None:
        await asyncio.sleep(0.05)

    async def several():
        held = [asyncio.ensure_future(executor.run(("held", n), lambda _: hold.wait(10), never)) for n in range(2)]
        await asyncio.sleep(0.02)
        asking = (executor.run(n, lambda _, n=n: begun.append(n), soon) for n in range(100))
        left = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(error, ClientDisconnectedError) for error in left)
        hold.set()
        await asyncio.gather(*held)
        return await executor.run("after", lambda _: b"prompt", never)

    assert asyncio.run(several()) == b"prompt"
    assert begun == []


def test_work_under_way_is_told_only_when_the_last_one_left(executor):
    told, begun = threading.Event(), threading.Event()

    def work(token):
        begun.set()
        try:
            for _ in range(1000):
                token.check()
                threading.Event().wait(0.01)
        except ClientDisconnectedError:
            told.set()
            raise

    async def soon() -> None:
        await asyncio.sleep(0.1)

    async def later() -> None:
        await asyncio.sleep(0.3)

    async def several():
        asking = [asyncio.ensure_future(executor.run("key", work, gone)) for gone in (soon, later)]
        await asyncio.sleep(0.2)
        assert begun.is_set()
        assert not told.is_set()
        await asyncio.wait(asking)
        return await asyncio.to_thread(told.wait, 5)

    assert asyncio.run(several())


def test_who_comes_when_too_many_wait_is_sent_away(executor, monkeypatch):
    monkeypatch.setattr(executors, "MOST_WAITING", 5)
    hold = threading.Event()

    async def several():
        asking = [asyncio.ensure_future(executor.run(n, lambda _: hold.wait(10), never)) for n in range(5)]
        await asyncio.sleep(0.02)
        same = asyncio.ensure_future(executor.run(3, lambda _: None, never))  # waits for what is under way
        with pytest.raises(BusyError):
            await executor.run("one more", lambda _: None, never)
        hold.set()
        assert await same is True
        await asyncio.gather(*asking)

    asyncio.run(several())
