# SPDX-License-Identifier: MIT
"""Work in threads: once for all who ask the same, bounded, and none for those who went away."""

import asyncio
import threading

import pytest

from nervcodec.serve import desk as desks
from nervcodec.serve.desk import Answers, Desk, GoneError
from nervcodec.serve.limits import BusyError


async def never() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def desk():
    made = Desk("test", 2)
    yield made
    made.close()
    made.wait()


def test_the_same_is_done_once(desk):
    done, begin = [], threading.Event()

    def work(_leave):
        begin.wait(10)
        done.append(1)
        return b"answer"

    async def several():
        asking = [asyncio.ensure_future(desk.ask("key", work, never)) for _ in range(20)]
        await asyncio.sleep(0.05)
        begin.set()
        answers = await asyncio.gather(*asking)
        return [*answers, await desk.ask("key", work, never)]

    assert asyncio.run(several()) == [b"answer"] * 21
    assert len(done) == 1


def test_errors_reach_all_and_are_not_kept(desk):
    done = []

    def work(_leave):
        done.append(1)
        raise ValueError("no")

    async def several():
        return await asyncio.gather(*(desk.ask("key", work, never) for _ in range(3)), return_exceptions=True)

    for _ in range(2):
        assert [str(error) for error in asyncio.run(several())] == ["no"] * 3
    assert 2 <= len(done) <= 6


def test_nothing_is_begun_for_those_who_went_away(desk):
    """Both threads are taken; of a hundred who ask for something else, all leave before a thread is free."""
    hold, begun = threading.Event(), []

    async def soon() -> None:
        await asyncio.sleep(0.05)

    async def several():
        held = [asyncio.ensure_future(desk.ask(("held", n), lambda _: hold.wait(10), never)) for n in range(2)]
        await asyncio.sleep(0.02)
        asking = (desk.ask(n, lambda _, n=n: begun.append(n), soon) for n in range(100))
        left = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(error, GoneError) for error in left)
        hold.set()
        await asyncio.gather(*held)
        return await desk.ask("after", lambda _: b"prompt", never)

    assert asyncio.run(several()) == b"prompt"
    assert begun == []


def test_work_under_way_is_told_only_when_the_last_one_left(desk):
    told, begun = threading.Event(), threading.Event()

    def work(leave):
        begun.set()
        try:
            for _ in range(1000):
                leave.check()
                threading.Event().wait(0.01)
        except GoneError:
            told.set()
            raise

    async def soon() -> None:
        await asyncio.sleep(0.1)

    async def later() -> None:
        await asyncio.sleep(0.3)

    async def several():
        asking = [asyncio.ensure_future(desk.ask("key", work, gone)) for gone in (soon, later)]
        await asyncio.sleep(0.2)
        assert begun.is_set()
        assert not told.is_set()
        await asyncio.wait(asking)
        return await asyncio.to_thread(told.wait, 5)

    assert asyncio.run(several())


def test_who_comes_when_too_many_wait_is_sent_away(desk, monkeypatch):
    monkeypatch.setattr(desks, "MOST_WAITING", 5)
    hold = threading.Event()

    async def several():
        asking = [asyncio.ensure_future(desk.ask(n, lambda _: hold.wait(10), never)) for n in range(5)]
        await asyncio.sleep(0.02)
        same = asyncio.ensure_future(desk.ask(3, lambda _: None, never))  # waits for what is under way
        with pytest.raises(BusyError):
            await desk.ask("one more", lambda _: None, never)
        hold.set()
        assert await same is True
        await asyncio.gather(*asking)

    asyncio.run(several())


def test_answers_are_kept_as_far_as_there_is_room():
    answers = Answers(100)
    for number in range(10):
        answers.put(number, bytes(20))
        answers.get(0)
    assert [number for number in range(10) if answers.get(number)] == [0, 6, 7, 8, 9]
    answers.put("large", bytes(26))
    answers.put("no bytes", {})
    assert answers.get("large") is answers.get("no bytes") is None
