# SPDX-License-Identifier: MIT
"""The time left of a whole encode: planned at first, then by the pace of what is done."""

import math

import pytest

from nervcodec.encoding.whole import Whole
from nervcodec.events import Observer


class Told(Observer):
    def __init__(self):
        self.now, self.events = 0.0, []

    def whole(self, event):
        self.events.append(event)

    def __call__(self):
        return self.now


def whole(planned=(math.nan, 0.0)):
    told = Told()
    return told, Whole(told, [10, 10, 20], planned, told)


def test_from_looking_at_the_source_to_the_last_segment():
    told, one = whole((0.5, 30.0))
    told.now = 2.0
    one.surveyed(10)
    assert told.events[-1].left_s == pytest.approx(2.0 * 3 + 30 + 40 * 0.5)
    told.now = 3.0
    one.surveyed(20)
    assert told.events[-1].left_s == pytest.approx(0.1 * 20 + 30 + 40 * 0.5)  # loading an encoder is over
    one.planned(None)
    one.planned(0.25)  # as this machine is seen to code
    one.tell()
    assert told.events[-1].left_s == pytest.approx(0.1 * 20 + 30 + 40 * 0.25)
    one.planned(0.5)
    told.now = 8.0
    one.surveyed(40)
    assert told.events[-1].left_s == pytest.approx(30 + 20)
    told.now = 18.0
    one.tell(1 / 3, 10.0)
    assert (told.events[-1].segment, told.events[-1].left_s) == (None, pytest.approx(20 + 20))
    told.now = 38.0
    one.begin(0)
    assert told.events[-1].left_s == pytest.approx(20)
    told.now = 40.0
    one.tell(0.25, 2.0)  # its own fit knows better than the plan
    assert told.events[-1].left_s == pytest.approx(6 + 15)
    told.now = 48.0
    one.begin(1)  # a frame took a second, not half of one
    assert told.events[-1].left_s == pytest.approx(30)
    assert told.events[-1].fraction == pytest.approx(48 / 78)
    told.now = 63.0
    one.tell()  # later than it should be
    assert told.events[-1].left_s == pytest.approx(20)
    one.begin(2)
    assert told.events[-1].left_s == pytest.approx(20 * 25 / 20)
    told.now = 100.0
    one.tell()
    assert (told.events[-1].left_s, told.events[-1].fraction) == (0.0, 1.0)


def test_where_nothing_is_known():
    told, one = whole()
    one.begin(0)
    assert math.isnan(told.events[-1].left_s)
    told.now = 5.0
    one.begin(1)
    assert told.events[-1].left_s == pytest.approx(15)
