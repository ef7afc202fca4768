# SPDX-License-Identifier: MIT
import math

from nervcodec import options
from nervcodec.jobs.pace import Pace


def test_later_files_take_what_those_before_took_by_their_size(tmp_path):
    files = [tmp_path / name for name in "abc"]
    for file, size in zip(files, (100, 300, 200), strict=True):
        file.write_bytes(bytes(size))
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").write_bytes(bytes(9))
    pace = Pace.of(files, options.from_flat(epochs=3))
    assert math.isnan(pace.later_s(0))
    assert pace.later_s(2) == 0
    pace.took(0, 10.0)
    assert pace.later_s(0) == 50.0
    pace.took(1, 50.0)
    assert pace.later_s(1) == 30.0
    timed = Pace.of(files, options.from_flat(time_s=60))
    timed.took(0, 70.0)
    assert timed.later_s(0) == 140.0
    mixed = Pace.of([files[0], tmp_path / "frames", files[1]], options.from_flat())
    mixed.took(0, 10.0)
    assert math.isnan(mixed.later_s(0))  # nothing is known of images
    assert mixed.later_s(1) == 30.0
