# SPDX-License-Identifier: MIT
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fits import embeddings
from hypothesis import given, settings
from hypothesis import strategies as st

from nervcodec import sizing
from nervcodec.coordinates import PatchGrid, patch_coordinates
from nervcodec.errors import ContainerError
from nervcodec.network.build import build, from_arrays, to_arrays
from nervcodec.network.config import (
    Geometry,
    PatchConfig,
    SemanticConfig,
    network_from_json,
    network_to_json,
)
from nervcodec.network.field import Inputs
from nervcodec.network.grid import pooling_matrix, resampling_matrix
from nervcodec.network.layers import pixel_shuffle, pixel_unshuffle
from nervcodec.network.original import positional_encoding
from nervcodec.network.shapes import check_shapes, is_per_segment, parameter_count
from nervcodec.network.timeline import Timeline, entries_per_shot
from nervcodec.options import NetworkOptions
from nervcodec.training.datasets import SegmentData, training_set
from nervcodec.training.rate_control import SizeGoal

SIZES = [(1, 1), (3, 5), (17, 31), (48, 64), (90, 161), (272, 640)]


def grid_config(height, width, frames=6, budget=60_000, rows=2, columns=4):
    patches = PatchGrid.fitting(height, width, rows, columns)
    geometry = Geometry(frames, height, width, patches.rows, patches.columns)
    return sizing.grid_config(geometry, budget, SemanticConfig(16, grid_channels=4, grid_times=3))


def patch_config(height, width, frames=6):
    patches = PatchGrid.fitting(height, width, 2, 4)
    geometry = Geometry(frames, height, width, patches.rows, patches.columns)
    return PatchConfig(geometry, levels=10, fc_hw=(3, 4), fc_dim=24, strides=(2, 2), semantic=SemanticConfig(16))


def lively(config):
    """A network whose every weight matters: grids start near nothing, which would hide mistakes."""
    torch.manual_seed(1)
    field = build(config).eval().requires_grad_(False)
    for name, p in field.named_parameters():
        if "grids" in name:
            p.normal_()
        elif p.ndim > 1:
            p.mul_(1.5)
    return field


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("make", [grid_config, patch_config])
def test_any_frame_size_comes_back_exactly(make, height, width):
    config = make(height, width)
    field = lively(config)
    images = field.render(Inputs(torch.tensor([0, 5])))
    assert images.shape == (2, height, width, 3)
    patches = field.geometry.patches.boxes()
    assert embeddings(field, torch.tensor([0, 5, 2])).shape == (3, len(patches), 16)


@pytest.mark.parametrize(("height", "width"), [*SIZES, (640, 1280)])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_patch_alone_is_the_same_window_of_the_frame(height, width, autocast):
    field = lively(grid_config(height, width))
    grid = field.geometry.patches
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        frame = field.render(Inputs(torch.tensor([3])))
        scale = frame.std().item()
        for row in range(grid.rows):
            for column in range(grid.columns):
                x, y, w, h = grid.box(row, column)
                patch = field.render(Inputs(torch.tensor([3]), (field.geometry.patches.patch(row, column),)))
                assert patch.shape == (1, h, w, 3)
                difference = (patch - frame[:, y : y + h, x : x + w]).abs().max().item()
                assert difference <= 1 / 255 * max(1.0, scale)
    if height > 100:
        assert scale > 0.2  # there is something to see


def test_a_window_is_less_work_than_the_frame():
    field = lively(grid_config(640, 1280))
    seen = []
    field.stages[0].register_forward_hook(lambda module, args, out: seen.append(out.shape[1:3].numel()))
    field.render(Inputs(torch.tensor([0]), (field.geometry.patches.patch(0, 0),)))
    field.render(Inputs(torch.tensor([0])))
    assert seen[0] < seen[1] / 3


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 9), st.integers(1, 9))
def test_patches_tile_the_frame(height, width, rows, columns):
    grid = PatchGrid.fitting(height, width, rows, columns)
    boxes = grid.boxes()
    assert sum(w * h for _, _, w, h in boxes) == height * width
    assert min(min(w, h) for _, _, w, h in boxes) >= 1
    assert max(h for *_, h in boxes) <= grid.patch_size[0]
    assert boxes[0][:2] == (0, 0)


def test_coordinates_of_patches():
    grid = PatchGrid(8, 8, 2, 2)
    assert [patch_coordinates(i, 0, 1, 3, grid) for i in range(3)] == [(t, 0.25, 0.75) for t in (0.0, 0.5, 1.0)]
    assert patch_coordinates(0, 0, 0, 1, grid)[0] == 0.0


@given(st.integers(1, 40), st.integers(1, 40))
def test_resampling_rows_sum_to_one(n_out, n_in):
    matrix = resampling_matrix(n_out, n_in)
    assert torch.allclose(matrix.sum(dim=1), torch.ones(n_out))
    if n_out == n_in:
        assert torch.equal(matrix, torch.eye(n_in))


def test_resampling_equals_linear_interpolation_of_torch():
    x = torch.randn(1, 1, 7)
    expected = torch.nn.functional.interpolate(x, size=20, mode="linear", align_corners=False)
    assert torch.allclose(resampling_matrix(20, 7) @ x[0, 0], expected[0, 0], atol=1e-6)


def test_pooling_counts_overlap():
    matrix = pooling_matrix([(0, 24), (24, 48)], 16, 3)
    assert torch.allclose(matrix, torch.tensor([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]))


def test_shuffle_and_unshuffle_are_inverse():
    x = torch.arange(2 * 3 * 4 * 48).view(2, 3, 4, 48)
    assert torch.equal(pixel_unshuffle(pixel_shuffle(x, 4), 4), x)
    assert pixel_shuffle(x, 4).shape == (2, 12, 16, 3)


def test_targets_and_predictions_share_a_layout():
    for config in (grid_config(50, 70), patch_config(50, 70)):
        field = build(config)
        frames = torch.randint(0, 256, (6, 50, 70, 3), dtype=torch.uint8)
        units = training_set(field, SegmentData(frames.numpy()), "cpu")
        packed = units.targets(torch.arange(units.count))
        assert packed.shape[0] == units.count
        prediction, _ = field(units.inputs(torch.tensor([0])), False)
        assert prediction.shape[1:] == packed.shape[1:]
        unit = units.to_images(packed[:1])[0]
        _, _, w, h = (0, 0, 70, 50) if unit.shape[0] == 50 else field.geometry.patches.box(0, 0)
        assert torch.allclose(unit[:h, :w], frames[0, :h, :w].float() / 255, atol=1e-6)


def test_positional_encoding_equals_the_formula():
    encoded = positional_encoding(torch.tensor([[0.0, 0.5, 1.0]]), 1.25, 80)
    assert encoded.shape == (1, 480)
    assert encoded[0, :80].abs().max() == 0  # sin 0
    assert encoded[0, 80:160].min() == 1  # cos 0
    assert encoded[0, 160 + 3].item() == pytest.approx(torch.sin(torch.tensor(1.25**3 * torch.pi / 2)).item(), abs=1e-5)


@pytest.mark.parametrize("config", [grid_config(48, 64), patch_config(48, 64)])
def test_configurations_and_weights_survive_storage(config):
    data = json.loads(json.dumps(network_to_json(config)))
    assert network_from_json(data) == config
    field = lively(config)
    again = from_arrays(config, to_arrays(field))
    assert torch.equal(field.render(Inputs(torch.tensor([1]))), again.render(Inputs(torch.tensor([1]))))
    assert parameter_count(config) == sum(p.numel() for p in field.parameters())


@pytest.mark.parametrize("config", [grid_config(48, 64), patch_config(48, 64)])
def test_every_parameter_has_one_owner(config):
    """What a grid network knows of places and times is the segment's own, the decoder may be shared."""
    sizes = {name: p.numel() for name, p in build(config).named_parameters()}
    own = {name for name in sizes if is_per_segment(config, name)}
    if isinstance(config, PatchConfig):
        assert own == set(sizes)
        return
    kinds = {name.split(".")[0] for name in set(sizes) - own}
    assert kinds == {"enter", "stages", "raise_", "pixels", "semantic"}
    assert {name for name in own if name.startswith("grids.")} == {n for n in sizes if n.startswith("grids.")}
    shared_config = replace(config, geometry=replace(config.geometry, frames=2 * config.geometry.frames))
    longer = {name: p.numel() for name, p in build(shared_config).named_parameters()}
    assert all(longer[name] == sizes[name] for name in set(sizes) - own)  # does not depend on the segment's length


def test_the_original_networks_native_size():
    geometry = Geometry(10, 640, 1280, 2, 4)
    config = PatchConfig(geometry)
    assert config.native_size == (1080, 1920)
    assert config.widths == [160, 133, 111, 92, 77]
    assert PatchConfig(geometry, fc_dim=96, strides=(5, 2, 2), reduce=1.5, lower_width=12).widths == [64, 42, 28]


def test_hostile_configurations_take_no_memory():
    config = grid_config(48, 64)
    data = network_to_json(config)
    huge = json.loads(json.dumps(data))
    huge["grids"][0][1] = 8_000
    with pytest.raises(ContainerError, match="expected"):
        check_shapes(network_from_json(huge), {n: tuple(a.shape) for n, a in to_arrays(build(config)).items()})
    for change in ({"kind": "x"}, {"widths": [0, 1, 1]}, {"grids": []}, {"more": 1}, {"depths": [1, 1, 10**9]}):
        with pytest.raises(ContainerError):
            network_from_json({**data, **change})
    with pytest.raises(ContainerError):
        network_from_json({**network_to_json(patch_config(48, 64)), "strides": [16] * 12})


@settings(max_examples=25)
@given(st.integers(1, 400), st.integers(1, 700), st.integers(1, 60), st.integers(24_000, 400_000))
def test_sizing_keeps_to_its_budget(height, width, frames, budget):
    config = grid_config(height, width, frames, budget)
    count = parameter_count(config)
    smallest = parameter_count(
        replace(config, grids=sizing.grid_shapes(sizing.QUICK, config.geometry, 0.0, sizing.SegmentTraits()))
    )
    assert count <= max(budget, smallest)


def test_the_size_follows_the_video():
    def count(height, width, frames, limit):
        geometry = Geometry(frames, height, width, 2, 4)
        return parameter_count(sizing.grid_config(geometry, sizing.parameter_budget(geometry, SizeGoal(limit)), None))

    bunny, bikes, carphone = count(640, 1280, 132, 1e9), count(272, 640, 250, 1e9), count(144, 176, 120, 1e9)
    assert bunny > 1.5 * bikes > 3 * carphone
    assert count(272, 640, 250, 450_000) * sizing.BITS_PER_PARAMETER / 8 <= 450_000


def test_long_fits_of_persistent_videos_get_detailed_grids():
    geometry, goal = Geometry(132, 640, 1280, 2, 4), SizeGoal(990_000)

    def finest(passes, persistence, parameters=None):
        chosen = NetworkOptions(parameters=parameters)
        config = sizing.network_config(
            chosen, geometry, goal, traits=sizing.SegmentTraits(passes=passes, persistence=persistence)
        )
        assert parameter_count(config) <= (parameters or 4_000_000)
        return [grid.times for grid in config.grids if grid.stage == 2]

    few, many = finest(80, 0.9)
    assert few == 2 < many
    assert finest(80, 0.5) == finest(10, 0.9) == [2]
    assert finest(80, 0.9, 1_500_000) == [2]  # too few parameters for both


def test_no_grid_interpolates_across_a_cut():
    timeline = Timeline.even(times=9, frames=60, cuts=(7, 8, 40))
    lower, upper, fraction = timeline.weights
    shots = np.repeat([0, 1, 2, 3], [7, 1, 32, 20])
    owners = {}
    for entries in (lower, upper):
        for shot, entry in zip(shots, entries.tolist(), strict=True):
            assert owners.setdefault(entry, shot) == shot
    assert sorted(owners) == list(range(9))
    assert fraction[0] == fraction[7] == fraction[8] == 0
    read = timeline(torch.arange(9.0)[:, None], torch.arange(60))[:, 0]
    assert (read.diff() >= 0).all()
    assert read[6] == upper[6]  # the last frame of a shot lies on its last entry


def test_a_grid_keeps_the_pace():
    pace = (0, 0, 30, 30, 10, 10, 10, 10, 50)  # a cut lies between frames 5 and 6
    before, after, weight = Timeline.even(6, 10, (6,), pace).weights
    position = before + weight
    assert position[:3].tolist() == [0, 0, 0]  # nothing happens
    assert (position.diff()[2:5] > 0).all()
    assert position[3] - position[2] > 2 * (position[5] - position[4])
    assert position[5] == before[6] - 1  # each shot begins and ends on entries of its own
    assert (after[6:] > position[5]).all()
    every = Timeline.even(10, 10, (6,), pace).weights
    assert (every[0] + every[2]).tolist() == list(range(10))  # an entry for each frame: no matter


def test_shots_share_entries_by_their_pace():
    assert entries_per_shot(12, [10, 10, 10], [0, 10, 30]) == [1, 3, 8]
    assert entries_per_shot(12, [10, 10, 4], [0, 10, 1000]) == [1, 7, 4]  # never more than frames
    assert sum(entries_per_shot(40, [10, 10], [1, 1])) == 40  # unless there are more entries than frames


def test_entries_at_specific_frames():
    timeline = Timeline.at((2, 6, 12), frames=20, cuts=(8, 10))
    read = timeline(torch.tensor([[2.0], [6.0], [12.0]]), torch.arange(20))[:, 0].tolist()
    assert read[:7] == pytest.approx([2, 2, 2, 3, 4, 5, 6])
    assert read[7] == 6  # the shot's last entry holds to its end
    assert read[8] == 6  # a shot without an entry takes the nearest
    assert read[9] == 6 or read[9] == 12
    assert read[10:] == [12.0] * 10


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.sets(st.integers(0, 59), min_size=1), st.sets(st.integers(1, 59)))
def test_entries_at_any_frames(frames, entries, cuts):
    entries = tuple(sorted(e for e in entries if e < frames)) or (0,)
    cuts = tuple(sorted(c for c in cuts if c < frames))
    timeline = Timeline.at(entries, frames, cuts)
    read = timeline(torch.tensor(entries, dtype=torch.float64)[:, None], torch.arange(frames))[:, 0]
    for frame, value in enumerate(read.tolist()):
        if frame in entries:
            assert value == pytest.approx(frame, abs=1e-4)
    assert read.min() >= entries[0] - 1e-4
    assert read.max() <= entries[-1] + 1e-4
    for a, b in zip([0, *cuts], [*cuts, frames], strict=True):  # what a shot shows comes from itself
        own = [e for e in entries if a <= e < b]
        if own:
            assert own[0] - 1e-4 <= read[a:b].min()
            assert read[a:b].max() <= own[-1] + 1e-4


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(1, 30), min_size=1, max_size=12), st.booleans(), st.randoms())
def test_a_timeline_holds_for_any_shots(times, lengths, paced, random):
    cuts = tuple(np.cumsum(lengths)[:-1].tolist())
    pace = tuple(random.choice([0, 1, 20, 99]) for _ in range(sum(lengths) - 1)) if paced else ()
    lower, upper, fraction = Timeline.even(times, sum(lengths), cuts, pace).weights
    assert lower.min() >= 0
    assert upper.max() <= times - 1
    assert ((upper - lower) <= 1).all()
    assert ((fraction >= 0) & (fraction <= 1)).all()
    if times >= len(lengths):
        assert sum(entries_per_shot(times, lengths)) == times
        assert sum(entries_per_shot(times, lengths, [random.choice([0, 7, 90]) for _ in lengths])) == times


def test_cuts_outside_the_segment_are_refused():
    geometry = Geometry(10, 32, 48, 1, 1)
    config = sizing.grid_config(geometry, 50_000, None, traits=sizing.SegmentTraits(cuts=(4,)))
    assert network_from_json(network_to_json(config)).cuts == (4,)
    for cuts in ([0], [10], [5, 5], [6, 4]):
        with pytest.raises(ContainerError, match="cuts"):
            network_from_json({**network_to_json(config), "cuts": cuts})


def test_low_rates_give_most_parameters_to_changing_grids():
    """A thinner grid for what lasts and a smaller decoder, in place of grids that are too coarse in time to follow."""
    geometry = Geometry(132, 720, 1280, 2, 4)

    def shares(kilobytes):
        limit = SizeGoal(1000 * kilobytes, reach=True)
        config = sizing.network_config(NetworkOptions(), geometry, limit, traits=sizing.SegmentTraits(passes=30))
        count, grids = parameter_count(config), sum(grid.size for grid in config.grids)
        lasting = sum(grid.size for grid in config.grids if grid.stage == 2)
        return (count - grids) / count, lasting / count, max(grid.times for grid in config.grids), count

    for kilobytes in (100, 150, 300, 600):
        decoder, lasting, times, count = shares(kilobytes)
        assert decoder < 0.12
        assert lasting <= 0.31
        assert times > 20
        assert count < 1.05 * 1000 * kilobytes * 8 / sizing.BITS_AT_TARGET_SIZE
    assert shares(50)[3] < 300_000  # as thin as there is
