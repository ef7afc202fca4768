# SPDX-License-Identifier: MIT
"""Segments fitted as one network that is taken apart: each is exactly its part, and knows nothing of the others."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from fits import psnr_db_of
from hypothesis import given, settings
from hypothesis import strategies as st

import nervcodec
from nervcodec import sizing
from nervcodec.encoding.joint import SharedNetwork
from nervcodec.encoding.together import divided, taken_apart
from nervcodec.events import Observer
from nervcodec.fitting.config import SizeGoal
from nervcodec.formats import bitstream
from nervcodec.formats.container import Container
from nervcodec.network.build import build, from_arrays
from nervcodec.network.config import Geometry
from nervcodec.network.inputs import Inputs

LENGTHS = (9, 1, 14)
KNOWN = sizing.Outlook(cuts=(9, 10, 17), pace=(3,) * 9 + (0, 9) + (4,) * 12, fewest=3)


def whole_config(outlook=KNOWN, budget=30_000, lengths=LENGTHS):
    return sizing.grid_config(Geometry(sum(lengths), 48, 64, 2, 2), budget, None, outlook)


def fitted(config, parts):
    """A network with some weights and quantisation steps, as a fit would give them."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        field = build(config, parts)
        with torch.no_grad():
            for parameter in field.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    steps = {name: np.array([0.01], np.float32) for name, p in field.named_parameters() if p.numel() >= 256}
    for number, shape in enumerate(field.config.grids):
        steps[f"grids.{number}.values"] = np.full(shape.channels, 0.01, np.float32)
    return field, steps


@pytest.mark.parametrize(
    "outlook", [KNOWN, replace(KNOWN, scenes=(0, 1, 0, 1), scene_count=2), replace(KNOWN, pace=())]
)
def test_a_segment_shows_what_the_whole_shows(outlook):
    config, parts = divided(whole_config(outlook), LENGTHS)
    field, steps = fitted(config, parts)
    common, pieces = taken_apart(field, steps, parts, None)
    stored = bitstream.values(bitstream.read(bitstream.encode(joined(common, pieces))))
    with torch.no_grad():
        for name, values in stored.items():
            field.get_parameter(name).copy_(torch.from_numpy(values))
    first = 0
    for piece, length in zip(pieces, LENGTHS, strict=True):
        part = from_arrays(piece.config, bitstream.values({**common, **piece.tensors}))
        wanted = field.render(Inputs(torch.arange(first, first + length)))
        found = part.render(Inputs(torch.arange(length)))
        assert (found - wanted).abs().max() < 1e-5
        assert (found - found.mean()).abs().max() > 0.1
        first += length


def joined(common, pieces):
    """The tensors of the whole network, as they were before it was taken apart."""
    tensors = dict(common)
    for name, tensor in pieces[0].tensors.items():
        integers = np.concatenate([piece.tensors[name].integers for piece in pieces])
        tensors[name] = replace(tensor, integers=integers)
    return tensors


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_frame_has_entries_of_its_segment_alone(data):
    lengths = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    frames = sum(lengths)
    edges = np.cumsum(lengths)[:-1].tolist()
    cuts = sorted({*edges, *data.draw(st.lists(st.integers(1, max(1, frames - 1)), max_size=3))} - {frames})
    pace = tuple(data.draw(st.lists(st.integers(0, 99), min_size=frames - 1, max_size=frames - 1)))
    scenes = tuple(range(len(cuts) + 1)) if data.draw(st.booleans()) else ()
    outlook = sizing.Outlook(cuts=tuple(cuts), pace=pace, scenes=scenes, scene_count=len(scenes))
    config, parts = divided(whole_config(outlook, data.draw(st.integers(1_000, 60_000)), lengths), lengths)
    assert [part.geometry.frames for part in parts] == lengths
    field = build(config, parts)
    for number, grid in enumerate(config.grids):
        lower, upper, weight = field.grids[number].timeline.places
        assert 0 <= int(lower.min()) <= int(upper.max()) < grid.times
        if number in config.lasting:
            continue
        ends = np.cumsum([0] + [part.grids[number].times for part in parts])
        assert ends[-1] == grid.times
        for place, start, stop in zip(range(len(parts)), np.cumsum([0, *lengths]), np.cumsum(lengths), strict=False):
            own = torch.cat([lower[start:stop], upper[start:stop][weight[start:stop] > 0]])
            assert ends[place] <= int(own.min())
            assert int(own.max()) < ends[place + 1]


def test_all_of_it_takes_no_more_than_was_asked_for():
    config, parts = divided(whole_config(), LENGTHS)
    field, steps = fitted(config, parts)
    free = size_of(*taken_apart(field, steps, parts, None))
    for limit in (25_000, 12_000, 6_000):
        size = size_of(*taken_apart(field, steps, parts, SizeGoal(limit)))
        assert 0.9 * min(limit, free) < size <= limit


def size_of(common, pieces):
    return sum(bitstream.encode(tensors).size for tensors in (common, *(piece.tensors for piece in pieces)))


def test_pieces_are_kept_as_they_are():
    config, parts = divided(whole_config(), LENGTHS)
    field, steps = fitted(config, parts)
    common, pieces = taken_apart(field, steps, parts, None)
    kept = io.BytesIO()
    torch.save(SharedNetwork(config, np.arange(24), common, {}, {}, pieces).to_facts(), kept)
    kept.seek(0)
    again = SharedNetwork.from_facts(torch.load(kept, weights_only=True))
    for mine, yours in zip(again.pieces, pieces, strict=True):
        assert mine.config == yours.config
        assert all(np.array_equal(mine.tensors[n].integers, t.integers) for n, t in yours.tensors.items())


class Recorder(Observer):
    """Asks to stop after so many steps of the fit, where told to."""

    def __init__(self, most=None):
        self.stages, self.steps, self.most = [], 0, most

    def stage(self, name, total=None):
        self.stages.append(name)

    def step(self, event):
        self.steps = event.step

    def stop_requested(self):
        return self.most is not None and "Fitting all segments together" in self.stages and self.steps >= self.most


def encoded(carphone, out, observer, **more):
    given = {"duration_s": 1.5, "segment": "15f", "encoder": "offline", "force": True} | more
    return nervcodec.encode(carphone, out, observer=observer, **given)


def test_a_file_of_segments_that_were_fitted_together(carphone, tmp_path):
    out, seen = tmp_path / "a.nerv", Recorder()
    report = encoded(carphone, out, seen, epochs=25, size_bytes=30_000)
    assert 0.85 * 30_000 <= report.size_bytes <= 30_000  # of so few steps
    assert [stage for stage in seen.stages if stage.startswith("Fitting")] == ["Fitting all segments together"]
    with nervcodec.open(out) as video:
        assert psnr_db_of(video, carphone, duration_s=1.5) == pytest.approx(report.psnr_db, abs=0.01)
        assert report.psnr_db > 22
        assert len(video.embedded_frames(0)) > 1
    with Container.at(out) as opened:
        opened.verify()
        own = [opened.network(segment.prefix).table() for segment in opened.header.segments]
        shared = opened.shared_weights().table()
    assert len(own) == 3
    for table in own:
        assert {name.partition(".")[0] for name in table} == {"grids", "semantic"}
    assert report.parameters == sum(np.prod(s) for table in (shared, *own) for s, _ in table.values())


def test_a_quality_to_reach_ends_the_fit(carphone, tmp_path):
    report = encoded(carphone, tmp_path / "a.nerv", Recorder(), epochs=400, psnr_db=24, encoder="none")
    assert report.complete
    assert report.psnr_db >= 24
    assert report.steps < 400


def test_a_stop_keeps_every_segment(carphone, tmp_path):
    out, seen = tmp_path / "a.nerv", Recorder(most=20)
    report = encoded(carphone, out, seen, epochs=400, encoder="none")
    assert not report.complete
    assert report.frames == 45
    with nervcodec.open(out) as video:
        assert not video.header.fit.complete
        assert len(video[44]) == 144
    assert not list(tmp_path.glob("*.resume"))
