# SPDX-License-Identifier: MIT
import math
import signal

import pytest

from nervcodec.cli.output import one_line
from nervcodec.cli.progress import PlainObserver, clock, describe, describe_whole
from nervcodec.display import human_bytes, timecode
from nervcodec.events import FileEvent, StepEvent, WholeEvent


def event(fraction=0.25, psnr_db=30.0, semantic=None):
    return StepEvent(0, 1, fraction, 100, 10.0, psnr_db, 0.05, semantic)


def test_a_line_carries_rate_quality_and_time_left():
    assert describe(event()) == "Fitting:  25%, step 100, PSNR 30.00 dB, 0.0500 bpp, 10 s, 30 s left"
    assert "PSNR" not in describe(event(psnr_db=math.nan))
    assert "semantic 0.500" in describe(event(semantic=0.5))


def test_a_video_of_several_segments_has_a_time_left_of_its_own(capsys):
    assert describe_whole(None) == describe_whole(WholeEvent(0, 1, 0.5, 30.0)) == ""
    assert describe_whole(WholeEvent(1, 3, 0.5, 3723.4)) == "segment 2 of 3, 50% of all, 1:02:03 left"
    assert describe_whole(WholeEvent(None, 3, math.nan, math.nan)) == "shared by all"
    assert clock(59.6) == "1:00"
    observer = PlainObserver()
    observer.whole(WholeEvent(1, 3, 0.5, 61.0))
    observer.stage("Coding the base", 250)
    assert capsys.readouterr().err == "Coding the base (250) ... (segment 2 of 3, 50% of all, 1:01 left)\n"


def test_plain_lines_come_every_ten_seconds(capsys):
    now = [0.0]
    observer = PlainObserver(clock=lambda: now[0])
    observer.stage("Fitting")
    for second in range(31):
        now[0] = float(second)
        observer.step(event())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Fitting ..."
    assert len(lines) == 1 + 3
    observer.step(event(fraction=1.0))
    assert "100%" in capsys.readouterr().err


def test_the_first_signal_stops_the_fit_and_the_second_gives_up(capsys):
    with PlainObserver() as observer:
        observer.stage("Fitting")
        observer.worth_keeping()
        signal.raise_signal(signal.SIGINT)
        assert observer.stop_requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "best state so far" in capsys.readouterr().err


def test_between_segments_there_is_something_to_keep():
    with PlainObserver() as observer:
        observer.worth_keeping()
        observer.stage("Embedding patches", 8)
        signal.raise_signal(signal.SIGINT)
        assert observer.stop_requested()


def test_a_signal_before_the_fit_interrupts():
    with PlainObserver() as observer:
        observer.stage("Reading")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_how_numbers_look():
    assert human_bytes(509_868) == "509.9 KB"
    assert human_bytes(12) == "12 bytes"
    assert timecode(3.5) == "00:03.500"
    assert timecode(3661.0004) == "1:01:01.000"
    assert one_line("a\nb\x1b[31m  c\n") == r"a\nb\x1b[31m  c"


def test_several_files_have_a_time_left_for_all_of_them(capsys):
    observer = PlainObserver()
    observer.file(FileEvent(0, 3, "a/b\n.mp4", math.nan))
    observer.whole(WholeEvent(0, 1, 0.5, 61.0))
    observer.stage("Fitting")
    observer.file(FileEvent(2, 3, "d.mp4", 0.0))
    observer.whole(WholeEvent(0, 1, 1.0, 0.0))  # an estimate that is used up says nothing
    observer.stage("Measuring")
    observer.file(FileEvent(1, 3, "c.mp4", 3600.0))
    observer.whole(WholeEvent(1, 3, 0.5, 61.0))
    observer.stage("Fitting")
    assert capsys.readouterr().err.splitlines() == [
        r"a/b\n.mp4 (file 1 of 3)",
        "Fitting ... (file 1 of 3)",
        "d.mp4 (file 3 of 3)",
        "Measuring ... (file 3 of 3)",
        "c.mp4 (file 2 of 3)",
        "Fitting ... (file 2 of 3, 1:01:01 left for all; segment 2 of 3, 50% of all, 1:01 left)",
    ]


def test_what_is_worth_keeping_is_asked_anew_for_each_file():
    with PlainObserver() as observer:
        observer.worth_keeping()
        observer.file(FileEvent(1, 2, "b.mp4", 0.0))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
