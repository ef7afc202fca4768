# SPDX-License-Identifier: MIT
"""An encode today against the committed files of the same settings, which most other tests read."""

from dataclasses import replace

import pytest

import nervcodec
from nervcodec.formats.container import read_header


def comparable(header):
    """Facts of a header that do not depend on the processor; the committed files have no digest of their source."""
    segments = [(segment.first_frame, segment.frame_count, segment.network) for segment in header.segments]
    video = replace(header.video, source_digest=None)
    return video, header.patch_grid, segments, header.semantic, header.tensors.keys()


@pytest.mark.slow
def test_network_alone(bikes, small_nerv, tmp_path):
    settings = {"start_s": 4.0, "duration_s": 2.0, "scale": 0.5, "epochs": 50, "segment": "1s"}
    report = nervcodec.encode(bikes, tmp_path / "street.nerv", encoder="offline", precision="fp32", **settings)
    written, committed = read_header(report.path), read_header(small_nerv)
    assert comparable(written) == comparable(committed)
    assert written.fit.psnr_db == pytest.approx(committed.fit.psnr_db, abs=0.3)
    assert report.size_bytes == pytest.approx(small_nerv.stat().st_size, rel=0.05)


@pytest.mark.slow
def test_av1_base(carphone, layered_nerv, tmp_path):
    settings = {"base": "av1", "crf": 40, "duration_s": 2.0, "segment": "30f", "encoder": "none"}
    report = nervcodec.encode(carphone, tmp_path / "phone.nerv", **settings)
    written, committed = read_header(report.path), read_header(layered_nerv)
    assert comparable(written) == comparable(committed)
    assert written.base.psnr_db == pytest.approx(committed.base.psnr_db, abs=0.05)
    assert report.size_bytes == pytest.approx(layered_nerv.stat().st_size, rel=0.02)
