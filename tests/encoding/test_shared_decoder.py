# SPDX-License-Identifier: MIT
"""One network for a whole video: what segments share, where they begin, and what each of them may take."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from fits import psnr_db_of

import nervcodec
from nervcodec import sizing
from nervcodec.encoding.plan import make_plan, segment_fit, shared_fit
from nervcodec.encoding.shared import SharedDecoder, sampled_numbers
from nervcodec.errors import ConfigError
from nervcodec.events import Observer
from nervcodec.formats import bitstream
from nervcodec.formats.container import Container
from nervcodec.network.build import build
from nervcodec.network.config import Geometry
from nervcodec.network.field import Inputs
from nervcodec.network.shapes import is_per_segment, parameter_count, per_segment_parameter_count
from nervcodec.options import from_flat

FRAMES = 24
KNOWN = sizing.SegmentTraits(
    cuts=(10,), pace=(3,) * 5 + (0, 9) + (4,) * (FRAMES - 8), fewest=3, scenes=(0, 1), scene_count=2
)


def shared_network(traits=KNOWN, numbers=None, seed=1):
    numbers = np.arange(FRAMES) if numbers is None else numbers
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        field = build(sizing.grid_config(Geometry(len(numbers), 48, 64, 2, 2), 30_000, None, traits))
        with torch.no_grad():
            for parameter in field.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    steps = {name: np.array([0.01], np.float32) for name, p in field.named_parameters() if p.numel() >= 256}
    for number, shape in enumerate(field.config.grids):
        steps[f"grids.{number}.values"] = np.full(shape.channels, 0.01, np.float32)
    return field, SharedDecoder.of(field, steps, numbers)


def of_segment(shared, first, frames, **known):
    """A segment's network that begins where the sample came to, with an entry for every frame where it may."""
    traits = sizing.SegmentTraits(fewest=frames, **known)
    config = sizing.per_segment_config(shared.config, Geometry(frames, 48, 64, 2, 2), 10**6, traits)
    field = build(config)
    field.freeze({name: torch.from_numpy(values) for name, values in shared.weights().items()})
    with torch.no_grad():
        for name, values in shared.beginning(config, first).items():
            field.get_parameter(name).copy_(torch.from_numpy(values))
    return field


@pytest.mark.parametrize(("first", "frames", "cuts", "scenes"), [(0, 9, (), (0,)), (6, 8, (4,), (0, 1))])
def test_a_segment_begins_where_the_sample_came_to(first, frames, cuts, scenes):
    whole, shared = shared_network()
    part = of_segment(shared, first, frames, cuts=cuts, scenes=scenes, scene_count=2)
    with torch.no_grad():
        for name, values in shared.weights().items():  # the sample's network with what is stored of it
            whole.get_parameter(name).copy_(torch.from_numpy(values))
        wanted = whole.render(Inputs(torch.arange(first, first + frames)))
        found = part.render(Inputs(torch.arange(frames)))
    assert (found - wanted).abs().max() < 0.02
    assert (found - found.mean()).abs().max() > 0.1


def test_segments_of_which_the_sample_has_little_or_nothing():
    traits = sizing.SegmentTraits(cuts=(2,), fewest=3)
    _, shared = shared_network(traits, numbers=np.array([0, 30, 60, 90]))
    assert not shared.config.lasting
    for first, frames in ((0, 30), (10, 20), (31, 8), (85, 6)):
        field = of_segment(shared, first, frames)
        assert all(bool(torch.isfinite(p).all()) for p in field.parameters())
        (one, other) = field.render(Inputs(torch.tensor([0, frames - 1]))).detach()
        assert torch.allclose(one, other, atol=1e-2), "no frame of the sample says that anything moves"


def test_whose_a_parameter_is():
    _, shared = shared_network()
    (fine,) = shared.config.lasting
    assert f"grids.{fine}.values" in shared.tensors
    assert not any(name in shared.grids for name in shared.tensors)
    assert {name for name in shared.grids if not is_per_segment(shared.config, name)} == set()
    config = sizing.per_segment_config(
        shared.config, Geometry(9, 48, 64, 2, 2), 5_000, replace(KNOWN, cuts=(), pace=(), scenes=(1,))
    )
    common = sum(array.size for array in bitstream.values(shared.tensors).values())
    assert per_segment_parameter_count(config) + common == parameter_count(config)
    assert per_segment_parameter_count(config) <= 5_000


def test_it_is_kept_as_it_is():
    _, shared = shared_network()
    kept = io.BytesIO()
    torch.save(shared.state_dict(), kept)
    kept.seek(0)
    again = SharedDecoder.from_state_dict(torch.load(kept, weights_only=True))
    assert again.config == shared.config
    assert np.array_equal(again.numbers, shared.numbers)
    for name, array in shared.weights().items():
        assert np.array_equal(again.weights()[name], array)
    for mine, yours in ((again.grids, shared.grids), (again.steps, shared.steps)):
        assert mine.keys() == yours.keys()
        assert all(np.array_equal(mine[name], yours[name]) for name in mine)


def test_more_bytes_for_where_more_happens():
    _, shared = shared_network(sizing.SegmentTraits(fewest=FRAMES))
    for grid in shared.grids.values():
        grid[: FRAMES // 2] *= 0.01
    still, busy, nothing = shared.shares([FRAMES // 2, FRAMES // 2, 6])
    assert busy > 2 * still
    assert still + busy + nothing == pytest.approx(1)
    assert nothing > 0, "a segment of which the sample has no frame has its share, too"
    assert still >= 0.3 * (FRAMES // 2) / (FRAMES + 6) - 1e-9
    for grid in shared.grids.values():
        grid[:] = 0.0
    assert shared.shares([8, 16]) == pytest.approx([1 / 3, 2 / 3]), "where nothing is spent, by length"


def test_a_scene_that_the_sample_has_no_frame_of_is_the_mean_of_the_others():
    traits = replace(KNOWN, scenes=(0, 2), scene_count=4)
    _, shared = shared_network(traits)
    (fine,) = shared.config.lasting
    grid = shared.weights()[f"grids.{fine}.values"]
    assert np.abs(grid[1] - grid[[0, 2]].mean(axis=0)).max() <= 0.006  # half a step
    assert np.array_equal(grid[1], grid[3])


def test_the_sample():
    fitted = np.ones(100, bool)
    fitted[::3] = False
    assert np.array_equal(sampled_numbers(fitted, 200), np.flatnonzero(fitted))
    few = sampled_numbers(fitted, 10)
    assert len(few) == 10
    assert fitted[few].all()
    assert (few[0], few[-1]) == (1, 98)
    assert np.ptp(np.diff(few)) <= 3
    assert not len(sampled_numbers(fitted, 0))


@pytest.fixture(scope="module")
def half_a_minute(tmp_path_factory, ffmpeg):
    """300 frames of 32 x 32 at 10 frames a second."""
    source = tmp_path_factory.mktemp("long") / "a.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=32x32:rate=10:duration=30", "-c:v", "libx264", source)
    return source


@pytest.mark.parametrize(
    ("sample", "settings", "lengths"),
    [
        (300, {}, [300]),
        (299, {}, [150, 150]),
        (110, {}, [100, 100, 100]),
        (50, {}, [100, 100, 100]),  # ten seconds at least, whatever their size
        (300, {"segment": "5s"}, [50] * 6),
        (300, {"segment": "none"}, [300]),
        (50, {"segment": "none"}, [300]),
        (300, {"base": "av1"}, [100, 100, 100]),
        (300, {"base": "copy"}, [100, 100, 100]),
        (300, {"embed": "pe_1.25_8"}, [100, 100, 100]),
    ],
)
def test_how_a_video_is_cut_into_segments(sample, settings, lengths, half_a_minute, monkeypatch):
    monkeypatch.setattr(sizing, "SAMPLE_BYTES", sample * 32 * 32 * 3)
    plan = make_plan(half_a_minute, from_flat(encoder="none", **settings), Observer())
    assert plan.lengths == lengths


@pytest.mark.parametrize("segment", [None, "10s", "5s", "none"])
def test_the_default_time_depends_on_the_length_alone(segment, half_a_minute):
    plan = make_plan(half_a_minute, from_flat(encoder="none", segment=segment), Observer())
    own_s = sum(segment_fit(plan, frames).time_s for frames in plan.lengths)
    assert own_s + (shared_fit(plan).time_s if plan.shares_network else 0) == pytest.approx(180 + 2 * 60)
    plan = make_plan(half_a_minute, from_flat(encoder="none", segment=segment, embed="pe_1.25_8"), Observer())
    assert sum(segment_fit(plan, frames).time_s for frames in plan.lengths) == pytest.approx(3 * 180)


@pytest.fixture(scope="module")
def many(carphone, tmp_path_factory):
    """A second and a half of carphone in three segments, its network fitted to a sample; and what was said of it."""
    out = tmp_path_factory.mktemp("many") / "many.nerv"
    seen = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizing, "SAMPLE_BYTES", 30 * 176 * 144 * 3)
        report = nervcodec.encode(
            carphone, out, duration_s=1.5, segment="15f", epochs=40, size_bytes=30_000, encoder="offline", observer=seen
        )
    return out, report, seen


@pytest.fixture
def memory_for_a_part(monkeypatch):
    """A sample is no more than a frame."""
    monkeypatch.setattr(sizing, "SAMPLE_BYTES", 0)


class Recorder(Observer):
    def __init__(self):
        self.stages, self.segments, self.steps = [], [], []

    def stage(self, name, total=None):
        self.stages.append(name)

    def begin_segment(self, number, count):
        self.segments.append((number, count))

    def step(self, event):
        self.steps.append(event)


def test_a_file_of_several_segments_has_one_decoder(many, carphone):
    out, report, seen = many
    assert 0.85 * 30_000 <= report.size_bytes <= 30_000  # of so few steps
    with nervcodec.open(out) as video:
        assert psnr_db_of(video, carphone, duration_s=1.5) == pytest.approx(report.psnr_db, abs=0.01)
        assert report.psnr_db > 24
        assert len(video.embedded_frames(0)) > 1
    with Container.open(out) as opened:
        opened.verify()
        shared, segments = opened.shared_weights().table(), opened.header.segments
        own = [opened.network(segment.prefix).table() for segment in segments]
        configs = [segment.network for segment in segments]
    assert "pixels.project.weight" in shared
    assert "semantic.directions.weight" in shared
    assert f"grids.{configs[0]['lasting'][0]}.values" in shared, "the camera stands still"
    for table in own:
        assert {name.partition(".")[0] for name in table} == {"grids", "semantic"}
        assert [name for name in table if name.startswith("semantic")] == ["semantic.codes"]
    assert report.parameters == sum(np.prod(s) for table in (shared, *own) for s, _ in table.values())
    assert seen.stages.count("Fitting") == 3
    assert len([name for name in seen.stages if name.startswith("Fitting what")]) == 1


def test_a_patch_and_a_frame_of_the_last_segment_alone(many):
    with nervcodec.open(many[0]) as video, nervcodec.open(many[0]) as again:
        assert np.array_equal(video[44], again[44])
        patch = again.patch(20, 1, 2).astype(int)
        assert np.abs(patch - video[20][72:, 88:132].astype(int)).max() <= 1


def test_how_far_it_is(many):
    seen = many[2]
    assert seen.segments == [(0, 3), (1, 3), (2, 3)]
    assert {event.unit for event in seen.steps} == {"passes"}
    assert [event.total for event in seen.steps if event.fraction == 1] == [20] * 4
    assert all(0 <= event.fraction <= 1 for event in seen.steps)


@pytest.mark.parametrize("sample_bytes", [0, 400e6])
def test_a_quiet_segment_is_no_reason_to_refuse_a_size_after_the_fit(tmp_path, ffmpeg, monkeypatch, sample_bytes):
    """Black at first: nothing is spent on it, and it is no error; a size that is too small is one before any work."""
    monkeypatch.setattr(sizing, "SAMPLE_BYTES", sample_bytes)
    source, out = tmp_path / "dark.mkv", tmp_path / "a.nerv"
    black, moving = (f"{what}=size=96x64:rate=10:duration=2" for what in ("color=black", "testsrc2"))
    both = ("-filter_complex", "[0][1]concat=n=2", "-c:v", "ffv1")
    ffmpeg("-f", "lavfi", "-i", black.replace("=size", ":size"), "-f", "lavfi", "-i", moving, *both, source)
    settings = {"segment": "1s", "epochs": 8, "encoder": "none"}
    report = nervcodec.encode(source, out, size_bytes=32_000, **settings)
    assert report.size_bytes <= 32_000
    seen = Recorder()
    with pytest.raises(ConfigError, match="ask for ([0-9,]+) or more") as refused:
        nervcodec.encode(source, out, size_bytes=12_000, force=True, observer=seen, **settings)
    assert not any(stage.startswith("Fitting") for stage in seen.stages)
    enough = int(re.search(r"ask for ([0-9,]+)", str(refused.value))[1].replace(",", ""))
    assert nervcodec.encode(source, out, size_bytes=enough, force=True, **settings).size_bytes <= enough


class StopAtOnce(Observer):
    """Asks to stop as soon as what all share is fitted."""

    def __init__(self):
        self.begun = False

    def stage(self, name, total=None):
        self.begun = self.begun or name.startswith("Fitting what")

    def stop_requested(self):
        return self.begun


@pytest.mark.usefixtures("memory_for_a_part")
def test_a_stop_while_the_shared_network_is_fitted_keeps_what_there_is(carphone, tmp_path):
    out = tmp_path / "a.nerv"
    report = nervcodec.encode(
        carphone, out, duration_s=1.0, segment="15f", epochs=40, encoder="none", observer=StopAtOnce()
    )
    assert not report.complete
    assert report.frames == 15
    assert len(nervcodec.open(out)[14]) == 144
