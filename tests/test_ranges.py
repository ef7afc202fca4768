# SPDX-License-Identifier: MIT
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nervcodec.errors import ConfigError
from nervcodec.media.shots import segment_lengths
from nervcodec.ranges import parse_duration, parse_frames, parse_pair, parse_scale, parse_size

TIMES = np.arange(250) / 25


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("1h", 3600),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("1:30", 90),
        ("1:00:01", 3601),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-5s", "5 minutes", "1:2:3:4", "nan", "inf", "1e400", "9" * 400, "5m3"])
def test_bad_durations(text):
    with pytest.raises(ConfigError):
        parse_duration(text)


def test_pairs_and_scales():
    assert parse_pair("2x4") == (2, 4)
    assert parse_pair("640_1280") == (640, 1280)
    assert parse_scale("1280x720") == (1280, 720)
    assert parse_scale("0.5") == 0.5
    for bad in ("2x", "0x4", "axb", "2x4x3"):
        with pytest.raises(ConfigError):
            parse_pair(bad)
    for bad in ("0", "-1", "half", "0x7", "1e3"):
        with pytest.raises(ConfigError):
            parse_scale(bad)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, range(250)),
        ("", range(250)),
        ("10", range(10, 11)),
        ("-1", range(249, 250)),
        ("10:20", range(10, 20)),
        ("10:20:2", range(10, 20, 2)),
        (":", range(250)),
        ("240:", range(240, 250)),
        ("-5:", range(245, 250)),
        ("3.5s", range(87, 88)),
        ("3s:5s", range(75, 125)),
        ("3s:", range(75, 250)),
        ("10:9999", range(10, 250)),
    ],
)
def test_frame_ranges(text, expected):
    assert parse_frames(text, TIMES, 10.0) == expected


@pytest.mark.parametrize("text", ["250", "-251", "20:10", "10:20:0", "10:20:-1", "a", "1:2:3:4", "10s", "99s:", "1.5"])
def test_bad_frame_ranges(text):
    with pytest.raises(ConfigError):
        parse_frames(text, TIMES, 10.0)


@given(st.integers(-300, 300), st.integers(-300, 300), st.integers(1, 50))
def test_ranges_follow_python_slices(start, stop, step):
    expected = range(250)[start:stop:step]
    if len(expected):
        assert parse_frames(f"{start}:{stop}:{step}", TIMES, 10.0) == expected
    else:
        with pytest.raises(ConfigError):
            parse_frames(f"{start}:{stop}:{step}", TIMES, 10.0)


@given(st.text(max_size=12))
def test_any_text_is_a_range_or_a_clear_error(text):
    try:
        chosen = parse_frames(text, TIMES, 10.0)
    except ConfigError:
        return
    assert len(chosen)


@given(st.integers(1, 5000), st.integers(1, 400))
def test_segments_cover_everything_evenly(count, longest):
    lengths = segment_lengths(count, 25.0, f"{longest}f")
    assert sum(lengths) == count
    assert max(lengths) <= longest
    assert max(lengths) - min(lengths) <= 1


def test_segment_texts():
    assert segment_lengths(250, 25.0, "10s") == [250]
    assert segment_lengths(251, 25.0, "10s") == [125, 126]
    assert segment_lengths(1000, 25.0, "none") == [1000]
    for bad in ("0f", "x", "1ms"):
        with pytest.raises(ConfigError):
            segment_lengths(10, 25.0, bad)


@pytest.mark.parametrize(
    ("text", "count"),
    [("400KB", 400_000), ("1.5 mb", 1.5e6), ("2Gib", 2 * 1024**3), ("64k", 64_000), ("409600", 409_600), ("2e5", 2e5)],
)
def test_sizes(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "KB", "-3KB", "0", "4 TB", "1e99", "400 KBs", "nan"])
def test_bad_sizes(text):
    with pytest.raises(ConfigError):
        parse_size(text)
