# SPDX-License-Identifier: MIT
"""From a real clip to a container and back, through the Python API."""

import os

import numpy as np
import pytest
import torch

import nervcodec
from nervcodec import sizing
from nervcodec.errors import ConfigError, ContainerError, VideoError
from nervcodec.events import Observer
from nervcodec.formats import bitstream
from nervcodec.formats.container import Container
from nervcodec.media.reader import read_frames
from nervcodec.media.source import SourceOptions, scan
from nervcodec.metrics import psnr_db
from nervcodec.network.field import Inputs
from nervcodec.network.grid import GridField

OPTIONS = SourceOptions(start_s=4.0, duration_s=2.0, scale=0.5)


@pytest.fixture(scope="module")
def source(bikes):
    return np.stack(list(read_frames(scan(bikes, OPTIONS), OPTIONS)))


@pytest.fixture(scope="module")
def video(small_nerv):
    return nervcodec.open(small_nerv, device="cpu")


def test_decoded_frames_show_the_scene(video, source):
    assert len(video) == len(source) == 50
    decoded = video[:]
    assert decoded.shape == source.shape
    assert decoded.dtype == np.uint8
    values = [psnr_db(a, b) for a, b in zip(decoded, source, strict=True)]
    assert np.mean(values) > 24
    assert video.header.fit.psnr_db == pytest.approx(np.mean(values), abs=0.05)  # what encode said is what decode gives


def test_it_is_a_sequence(video):
    assert np.array_equal(video[3], video[:5][3])
    assert np.array_equal(video[-1], video[49])
    assert video[30:20].shape == (0, 136, 320, 3)
    assert video[10:20:5].shape[0] == 2
    assert np.array_equal(video.frame_at(1.0), video[25])
    assert np.array_equal(video.frame_at(0.999), video[24])
    assert sum(1 for _ in video) == 50
    for bad in (50, -51):
        with pytest.raises(IndexError):
            video[bad]
    for bad in (2.0, -0.1):
        with pytest.raises(IndexError):
            video.frame_at(bad)


def test_a_patch_is_its_part_of_the_frame(video):
    frame = video[30].astype(int)
    for row, column in ((0, 0), (1, 3), (0, 2)):
        x, y, w, h = video.grid.box(row, column)
        patch = video.patch(30, row, column).astype(int)
        assert np.abs(patch - frame[y : y + h, x : x + w]).max() <= 1
    with pytest.raises(IndexError):
        video.patch(0, 2, 0)


def test_only_requested_frames_are_decoded(small_nerv, monkeypatch):
    from nervcodec.network.grid import GridField

    rendered = []
    original = GridField.render

    def recorded(self, inputs):
        rendered.append(inputs.frames.tolist())
        return original(self, inputs)

    monkeypatch.setattr(GridField, "render", recorded)
    video = nervcodec.open(small_nerv)
    video[27:31]
    assert rendered == [[2, 3, 4, 5]]  # of the second segment only


def test_precision_makes_little_difference(small_nerv, video):
    a = nervcodec.open(small_nerv, device="cpu", precision="fp32")[10].astype(float)
    b = nervcodec.open(small_nerv, device="cpu", precision="bf16")[10].astype(float)
    assert np.abs(a - b).mean() < 1


def test_search_decodes_the_semantic_head_alone(small_nerv, monkeypatch):
    video = nervcodec.open(small_nerv, device="cpu")
    networks = [video.network(n) for n in range(2)]

    def refuse(*_arguments):
        raise AssertionError("the whole network was decoded")

    monkeypatch.setattr("nervcodec.network.build.from_arrays", refuse)
    fresh = nervcodec.open(small_nerv, device="cpu")
    frames = torch.arange(25)
    for number, parts in enumerate(fresh.embedding_parts()):
        weight = parts.weight[:, None, None]
        results = parts.coefficients[parts.before] * (1 - weight) + parts.coefficients[parts.after] * weight
        assert np.allclose(results, networks[number].coefficients(Inputs(frames)).numpy(), atol=1e-5)
    with Container.open(small_nerv) as opened:
        stream = opened.array("0/weights")
    names = [line.name for line in bitstream.read_table(stream)[0]]
    behind = [not name.startswith((":", "semantic.")) for name in names]
    assert behind == sorted(behind)  # it comes first, but for what is said of frames


def test_scaling(video):
    frame = next(video.frames([5], scale=0.5))
    assert frame.shape == (68, 160, 3)
    with pytest.raises(ConfigError):
        next(video.frames([5], scale=0))


def test_search_through_the_offline_encoder(video):
    results = video.search("a bicycle", k=3)
    assert 1 <= len(results) <= 3
    assert results[0].score == max(m.score for m in results)
    assert 0 <= results[0].start_s < results[0].end_s <= 2.0
    assert results[0].file == video.path


def test_openclip_end_to_end(carphone, tmp_path, tiny_clip):
    out = tmp_path / "a.nerv"
    nervcodec.encode(carphone, out, duration_s=0.5, epochs=5, encoder=tiny_clip)
    video = nervcodec.open(out)
    assert video.header.semantic.encoder == tiny_clip
    assert video.header.semantic.dimension == 24
    assert video.search("sink", k=1, cut_off=False)[0].file == out
    assert nervcodec.evaluate(out, carphone).semantic["cosine"] > 0.5


def test_evaluation_reads_the_written_file(small_nerv, bikes):
    report = nervcodec.evaluate(small_nerv, bikes)
    data = report.to_json()
    assert data["psnr"] == pytest.approx(nervcodec.open(small_nerv).header.fit.psnr_db, abs=0.05)
    assert data["bytes"] == small_nerv.stat().st_size
    assert data["bpp"] == pytest.approx(8 * data["bytes"] / (50 * 136 * 320), rel=1e-3)
    assert 0 < data["ssim"] < 1
    assert 0 < data["ms_ssim"] < 1
    assert data["decode_fps"] > 1
    assert data["semantic"]["cosine"] > data["semantic"]["centred_cosine"] > 0.3
    assert set(data["retrieval"]) == {"recall_at_10", "ndcg_at_10", "rank_correlation"}
    assert data["retrieval"]["ndcg_at_10"] > 0.7


def test_evaluation_refuses_another_video(small_nerv, bunny):
    with pytest.raises(VideoError, match="is it the video that was encoded"):
        nervcodec.evaluate(small_nerv, bunny)


class StopInSecondSegment(Observer):
    def __init__(self):
        self.segment = 0

    def step(self, event):
        self.segment = event.segment

    def stop_requested(self):
        return self.segment == 1


def test_a_stopped_encode_is_a_valid_shorter_container(bikes, tmp_path, run, monkeypatch):
    monkeypatch.setattr(sizing, "SAMPLE_BYTES", 0)  # what they share takes no time
    out = tmp_path / "a.nerv"
    report = nervcodec.encode(
        bikes, out, duration_s=1.2, scale=0.25, segment="0.4s", time_s=6, encoder="none", observer=StopInSecondSegment()
    )
    assert not report.complete
    video = nervcodec.open(out)
    assert len(video) == report.frames == 20
    assert video.header.video.duration_s == pytest.approx(0.8)
    assert not video.header.fit.complete
    assert "stopped early; 10 of 30 frames missing" in run("info", out).stdout
    with pytest.raises(ContainerError, match="--encoder none"):
        video.search("sink")


def test_a_single_pixel_and_a_single_frame(tmp_path, ffmpeg):
    source = tmp_path / "dot.mkv"
    ffmpeg("-f", "lavfi", "-i", "color=c=red:size=1x1:rate=1:duration=1", "-pix_fmt", "rgb24", "-c:v", "ffv1", source)
    nervcodec.encode(source, epochs=200, encoder="none")
    video = nervcodec.open(tmp_path / "dot.nerv")
    assert video.header.patch_grid == (1, 1)
    assert np.abs(video[0].astype(int) - [[[254, 0, 0]]]).max() <= 12


@pytest.mark.slow
def test_the_original_method_end_to_end(carphone, tmp_path):
    out = tmp_path / "pe.nerv"
    settings = {"embed": "pe_1.25_20", "fc_hw": (3, 4), "fc_dim": 24, "strides": (3, 2, 2), "reduce": 1.5}
    report = nervcodec.encode(
        carphone, out, duration_s=0.5, epochs=25, loss="fusion6", lower_width=8, encoder="offline",
        lr_type="cosine_0.1_1_0.1", batch_size=4, pixel_warmup=5, patches=(2, 2), lr=0.002, **settings,
    )  # fmt: skip
    assert report.psnr_db > 18
    video = nervcodec.open(out)
    assert video[0].shape == (144, 176, 3)
    assert video.header.segments[0].network["kind"] == "pe"
    frame, patch = video[2].astype(int), video.patch(2, 1, 1).astype(int)
    assert np.abs(frame[72:, 88:] - patch).max() <= 1
    assert video.embeddings([0, 3]).shape == (2, 4, 384)


class Notes(Observer):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_a_gpu_without_enough_memory_falls_back_to_the_cpu(carphone, tmp_path, monkeypatch):
    """The error of a GPU, raised until the fit notes that it continues without one."""
    notes, forward = Notes(), GridField.forward

    def too_large(self, units, with_semantics):
        if not any("on the CPU" in note for note in notes.notes):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, units, with_semantics)

    monkeypatch.setattr(GridField, "forward", too_large)
    out = tmp_path / "a.nerv"
    report = nervcodec.encode(carphone, out, duration_s=0.3, epochs=2, encoder="none", observer=notes)
    assert report.steps >= 2
    assert any("the GPU's memory does not hold this fit" in note for note in notes.notes)
    assert nervcodec.open(out)[0].shape == (144, 176, 3)


def test_resources_of_decoding(video):
    needs = video.needs(50)
    assert needs.pixel_bytes == 50 * 136 * 320 * 3
    assert 100e6 < needs.memory_bytes < 1e9
    assert video.needs(50, scale=16).memory_bytes > 2 * needs.memory_bytes


def test_variable_frame_rate_end_to_end(bikes, tmp_path, ffmpeg):
    source = tmp_path / "vfr.mkv"
    select = "select='not(mod(n,4))+lt(n,10)',scale=64:48,settb=1/1000"
    ffmpeg("-i", bikes, "-t", "1", "-vf", select, "-fps_mode", "passthrough", "-c:v", "libx264", source)
    nervcodec.encode(source, epochs=20, encoder="none")
    video = nervcodec.open(tmp_path / "vfr.nerv")
    assert video.header.video.variable_frame_rate
    assert np.allclose(video.frame_times_s, scan(source).times_s)
    steady = list(video.at_constant_rate(video.frames()))
    assert len(steady) == pytest.approx(video.header.video.duration_s * float(video.frame_rate), abs=1)


def test_the_same_seed_gives_the_same_file(carphone, tmp_path):
    threads = torch.get_num_threads()
    settings = {"duration_s": 0.3, "epochs": 3, "encoder": "none", "precision": "fp32", "seed": 7}
    nervcodec.encode(carphone, tmp_path / "a.nerv", **settings)
    nervcodec.encode(carphone, tmp_path / "b.nerv", **settings)
    assert torch.get_num_threads() == threads
    with Container.open(tmp_path / "a.nerv") as a, Container.open(tmp_path / "b.nerv") as b:
        assert all(np.array_equal(a.array(n), b.array(n)) for n in a.header.tensors)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "best"}, "unknown preset"),
        ({"colour": 1}, "unknown option 'colour'"),
        ({"embed": "hash"}, "unknown positional encoding"),
        ({"time_s": -1}, "above 0"),
        ({"segment": "0f"}, "shorter than a frame"),
        ({"semantic_fps": 0}, "semantic_fps must be above 0"),
        ({"embed": "pe_1.25_80", "strides": (16,) * 8}, "16 million pixels"),
    ],
)
def test_bad_options_are_clear(carphone, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        nervcodec.encode(carphone, tmp_path / "a.nerv", **{"encoder": "none", **settings})
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_guarded(carphone, tmp_path, monkeypatch):
    target = tmp_path / "a.nerv"
    target.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="--force"):
        nervcodec.encode(carphone, target)
    copy = tmp_path / "b.mp4"
    copy.write_bytes(carphone.read_bytes())
    with pytest.raises(ConfigError, match="same file"):
        nervcodec.encode(copy, copy, force=True)
    with pytest.raises(ConfigError, match="no such folder"):
        nervcodec.encode(carphone, tmp_path / "none" / "a.nerv")
    with pytest.raises(ConfigError, match="is a folder"):
        nervcodec.encode(carphone, tmp_path, force=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)  # root may write anywhere, so the question itself is answered
        with pytest.raises(ConfigError, match="without write permission"):
            nervcodec.encode(carphone, tmp_path / "c.nerv")
    assert target.read_bytes() == b"precious"


def test_containers_with_a_false_network_are_refused(small_nerv, tmp_path):
    from containers import tampered

    copy = tmp_path / "a.nerv"
    copy.write_bytes(small_nerv.read_bytes())
    for change in (
        lambda h: h["segments"][0]["network"]["geometry"].__setitem__(0, 10**7),
        lambda h: h["segments"][0]["network"].update(kind="x"),
        lambda h: h["segments"][1].update(prefix="0/"),
        lambda h: h.update(patch_grid=[1, 1]),
        lambda h: h["semantic"].update(dimension=512),
        lambda h: h.pop("semantic"),
        lambda h: h["video"].update(width=322),
    ):
        with pytest.raises(ContainerError):
            nervcodec.open(tampered(copy, change))
    # What the tensors show is found when a segment is first used, before memory for its network is taken.
    lying = tampered(copy, lambda h: h["segments"][0]["network"].update(widths=[8000, 8000, 8000]))
    with nervcodec.open(lying, device="cpu", precision="fp32") as video:
        for ask in (lambda: video[0], lambda: video.embeddings([0])):
            with pytest.raises(ContainerError, match=r"tampered\.nerv: tensor '[^']*': expected \([^:]*, stored \("):
                ask()
        assert video[30].shape == (136, 320, 3)
