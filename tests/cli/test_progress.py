# SPDX-License-Identifier: MIT
import math
import signal

import pytest

from nervcodec.cli.output import one_line
from nervcodec.cli.progress import PlainObserver, RichObserver, describe
from nervcodec.events import PASSES, SECONDS, FileEvent, StepEvent, WorkEvent
from nervcodec.formats.text import human_bytes, timecode


def event(fraction=0.25, psnr_db=30.0, semantic=None, total=40.0, unit=SECONDS):
    return StepEvent(0, 1, fraction, 100, 10.0, psnr_db, 0.05, semantic, total, unit)


def test_a_line_states_budget_rate_and_quality():
    assert describe(event()) == "10/40 s, PSNR 30.00 dB, 0.0500 bpp, step 100"
    assert "PSNR" not in describe(event(psnr_db=math.nan))
    assert "semantic 0.500" in describe(event(semantic=0.5))
    assert describe(event(total=5.0, unit=PASSES)).startswith("1.2/5 passes, ")


def test_a_line_names_the_segment_of_several(capsys):
    observer = PlainObserver()
    observer.begin_segment(0, 1)
    observer.stage("Coding the base", 250)
    observer.begin_segment(1, 3)
    observer.stage("Coding the base", 250)
    assert capsys.readouterr().err.splitlines() == [
        "Coding the base (250) ...",
        "Coding the base (250) ... (segment 2 of 3)",
    ]


@pytest.fixture
def drawn():
    """A terminal's observer on a clock of its own, and what its bars hold: what is left is rich's to say."""
    now = [0.0]
    observer = RichObserver(clock=lambda: now[0])

    def bars():
        return {
            task.description: (task.completed, task.total, task.time_remaining, task.fields["detail"])
            for task in observer.progress.tasks
        }

    return observer, now, bars


def test_a_fit_is_shown_in_seconds_or_passes(drawn):
    observer, now, bars = drawn
    observer.stage("Fitting")
    assert bars() == {"Fitting": (0, None, None, "")}
    for now[0] in (10.0, 20.0):
        observer.step(event(fraction=now[0] / 40))
    assert bars() == {"Fitting": (20, 40, 20, describe(event(fraction=0.5)))}
    observer.stage("Fitting")
    for now[0] in (30.0, 35.0):
        observer.step(event(fraction=(now[0] - 25) / 25, total=5.0, unit=PASSES))
    assert bars() == {"Fitting": (2, 5, 15, describe(event(fraction=0.4, total=5.0, unit=PASSES)))}


def test_files_segments_and_frames_have_a_bar_each(drawn):
    observer, now, bars = drawn
    observer.file(
        FileEvent(
            0,
            3,
            "[a].mp4",
        )
    )
    observer.stage("Reading")
    for number in range(3):
        now[0] = 100.0 * number
        observer.begin_segment(number, 5)
    observer.stage("Coding the base", 250)
    for now[0] in (210.0, 220.0):
        observer.advance(50)
    assert bars() == {
        "Files": (0, 3, None, "1/3 [a].mp4"),
        "Segments": (2, 5, 300, "3/5"),
        "Coding the base": (100, 250, 30, "100/250"),
    }
    observer.file(FileEvent(1, 3, "b.mp4"))
    assert list(bars()) == ["Files"]
    now[0] = 520.0
    observer.file(FileEvent(2, 3, "c.mp4"))
    assert bars() == {"Files": (2, 3, 300, "3/3 c.mp4")}


def test_workers_are_shown_by_files(drawn):
    observer, now, bars = drawn
    observer.stage("Encoding, 2 at once")
    for now[0], done in ((10.0, 0.5), (20.0, 1.0)):
        observer.work(WorkEvent(int(done), 4, 3, 2, done))
    assert bars() == {"Encoding, 2 at once": (1, 4, 60, "1 of 4 files, 3 tasks done, 2 running")}


def test_plain_lines_come_every_ten_seconds(capsys):
    now = [0.0]
    observer = PlainObserver(clock=lambda: now[0])
    observer.stage("Fitting")
    for second in range(31):
        now[0] = float(second)
        observer.step(event())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Fitting ..."
    assert lines[1] == "Fitting: 10/40 s, PSNR 30.00 dB, 0.0500 bpp, step 100"
    assert len(lines) == 1 + 3
    observer.step(event(fraction=1.0))
    assert "Fitting: 40/40 s" in capsys.readouterr().err


def test_the_first_signal_stops_the_fit_and_the_second_gives_up(capsys):
    with PlainObserver() as observer:
        observer.stage("Fitting")
        observer.partial_result_ready()
        signal.raise_signal(signal.SIGINT)
        assert observer.stop_requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "best state so far" in capsys.readouterr().err


def test_a_signal_between_segments_keeps_finished_segments():
    with PlainObserver() as observer:
        observer.partial_result_ready()
        observer.stage("Embedding patches", 8)
        signal.raise_signal(signal.SIGINT)
        assert observer.stop_requested()


def test_a_signal_before_the_fit_interrupts():
    with PlainObserver() as observer:
        observer.stage("Reading")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_number_formats():
    assert human_bytes(509_868) == "509.9 KB"
    assert human_bytes(12) == "12 bytes"
    assert timecode(3.5) == "00:03.500"
    assert timecode(3661.0004) == "1:01:01.000"
    assert one_line("a\nb\x1b[31m  c\n") == r"a\nb\x1b[31m  c"


def test_a_line_names_the_file_of_several(capsys):
    observer = PlainObserver()
    observer.file(FileEvent(0, 3, "a/b\n.mp4"))
    observer.begin_segment(1, 3)
    observer.stage("Fitting")
    observer.file(FileEvent(2, 3, "d.mp4"))
    observer.stage("Measuring")
    assert capsys.readouterr().err.splitlines() == [
        r"a/b\n.mp4 (file 1 of 3)",
        "Fitting ... (file 1 of 3; segment 2 of 3)",
        "d.mp4 (file 3 of 3)",
        "Measuring ... (file 3 of 3)",
    ]


def test_each_file_starts_without_a_partial_result():
    with PlainObserver() as observer:
        observer.partial_result_ready()
        observer.file(FileEvent(1, 2, "b.mp4"))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
