# SPDX-License-Identifier: MIT
"""Tone mapping of known luminances from HDR to BT.709."""

import numpy as np
import pytest

from nervcodec.colour import STEP
from nervcodec.formats.header import HLG, PQ, PlaneFormat
from nervcodec.media.planes import Light
from nervcodec.tone_mapping import peak_of, to_sdr8

CDM2 = np.array([0, 1, 5, 18, 40, 80, 100, 203, 300, 600, 1000, 4000])


def pq(light):
    """Signal from 0 to 1 of cd/m², by SMPTE ST 2084."""
    power = (np.asarray(light, float) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def shown(signal, transfer=PQ, primaries=9, peak=1000):
    """8-bit RGB of (n, 3) signals from 0 to 1."""
    rgb = np.rint(np.asarray(signal) * 255 * STEP).astype(np.int16).reshape(1, 1, -1, 3)
    return to_sdr8(rgb, PlaneFormat(10, matrix=9, primaries=primaries, transfer=transfer), peak)[0, 0].astype(int)


def test_greys_of_known_luminance():
    grey = shown(np.repeat(pq(CDM2)[:, None], 3, axis=1))
    assert np.ptp(grey, axis=1).max() <= 1
    of = dict(zip(CDM2.tolist(), grey[:, 1].tolist(), strict=True))
    assert of[0] == 0
    assert 225 <= of[203] <= 240  # white paper
    # Below the knee of the curve light is as bright as on a screen whose white is 203 cd/m².
    for light in (1, 5, 18, 40, 80):
        assert of[light] == pytest.approx(255 * (light / 203) ** (1 / 2.4), abs=1.5)
    assert sorted(of.values()) == list(of.values())
    assert of[203] < of[300] < of[600] < of[1000] == of[4000] == 255


@pytest.mark.parametrize("peak", [100, 203, 400, 1000, 4000, 10_000])
def test_the_peak_of_a_source_is_white(peak):
    light = np.array([0, 5, 40, 100, 203, 400, 1000, 4000, 10_000])
    grey = shown(np.repeat(pq(light)[:, None], 3, axis=1), peak=peak)[:, 1]
    assert sorted(grey) == grey.tolist()
    assert grey[light >= max(peak, 203)].min() == 255
    assert peak <= 203 or grey[light == 203].max() < 255
    assert abs(grey[1] - 255 * (5 / 203) ** (1 / 2.4)) <= 1.5
    assert peak > 203 or abs(grey[3] - 255 * (100 / 203) ** (1 / 2.4)) <= 2  # nothing to compress


def test_peak_of_what_a_stream_states():
    display = (*[0.3] * 8, 0.005, 4000.0)
    assert peak_of(None) == 1000
    assert peak_of(Light(display)) == 4000
    assert peak_of(Light(display, (600, 200))) == peak_of(Light(None, (600, 200))) == 600


def test_hlg_reference_white_is_at_three_quarters_of_the_signal():
    grey = shown([[0.75] * 3, [0.0] * 3, [1.0] * 3], HLG)
    paper = shown([[pq(203)] * 3])[0, 1]
    assert np.abs(grey - [[paper] * 3, [0] * 3, [255] * 3]).max() <= 1


@pytest.mark.parametrize(
    ("primaries", "red"),
    [(9, (0.6274, 0.0691, 0.0164)), (12, (0.8225, 0.0332, 0.0171)), (1, (1, 0, 0))],
)
def test_red_of_bt709_does_not_change(primaries, red):
    """Red of BT.709 at 60 cd/m², in linear light of wider primaries."""
    (colour,) = shown([pq(60 * np.array(red))], primaries=primaries)
    assert colour[0] == pytest.approx(255 * (60 / 203) ** (1 / 2.4), abs=3)
    assert colour[1:].max() <= 12


def test_values_beyond_black_and_white():
    rgb = np.array([[[[-500, -1, 0], [16320, 20000, 32767]]]], np.int16)
    assert to_sdr8(rgb, PlaneFormat(10, matrix=9, primaries=9, transfer=PQ)).tolist() == [[[[0] * 3, [255] * 3]]]
