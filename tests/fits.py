# SPDX-License-Identifier: MIT
"""Small fits for tests."""

import numpy as np
import torch

from nervcodec import metrics, sizing
from nervcodec.device import Hardware
from nervcodec.events import Observer
from nervcodec.media.options import SourceOptions
from nervcodec.media.reader import read_frames
from nervcodec.media.source import scan
from nervcodec.network.build import build
from nervcodec.network.config import Geometry, SemanticConfig
from nervcodec.network.field import Inputs
from nervcodec.training.datasets import SegmentData
from nervcodec.training.hooks import ProgressHook
from nervcodec.training.loop import TrainingLoop
from nervcodec.training.state import FitState

CPU = Hardware("cpu", "fp32")


def too_small_a_gpu(monkeypatch):
    """Fits in bf16 run out of a GPU's memory from here on; the list takes what is noted."""
    run, messages = TrainingLoop.run, []

    def too_small(self):
        if self.state.hardware.precision == "bf16":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return run(self)

    monkeypatch.setattr(TrainingLoop, "run", too_small)
    monkeypatch.setattr(Observer, "note", lambda _self, text: messages.append(text))
    return messages


def psnr_db_of(video, source, **options):
    """Mean PSNR of the frames of an open video against those of its source."""
    chosen = SourceOptions(**options)
    frames = read_frames(scan(source, chosen), chosen)
    return float(np.mean([metrics.psnr_db(video[number], frame) for number, frame in enumerate(frames)]))


def moving_square(frames=8, height=48, width=64):
    video = np.full((frames, height, width, 3), 60, np.uint8)
    for i in range(frames):
        video[i, 10:30, 4 + 4 * i : 24 + 4 * i] = (220, 120, 30)
    return video


def begun(config, video=None, embeddings=None, semantic=False, goal=None):
    """A fit at its beginning."""
    video = moving_square() if video is None else video
    geometry = Geometry(*video.shape[:3], 2, 4)
    torch.manual_seed(0)
    head = SemanticConfig(12, grid_channels=4, grid_times=4) if semantic else None
    field = build(sizing.grid_config(geometry, 30_000, head))
    rows = np.arange(0, len(video), 2) if embeddings is not None else None
    return FitState(field, SegmentData(video, embeddings, rows), config, CPU, goal)


def fitted(config, observer=None, measure_every_s=0.25, **more):
    """(state, result) of a fit at its end."""
    state, observer = begun(config, **more), observer or Observer()
    return state, TrainingLoop(state, observer, [ProgressHook(observer)], measure_every_s=measure_every_s).run()


def random_embeddings(n=4, patches=8, dimension=12):
    x = np.random.default_rng(0).normal(size=(n, patches, dimension)).astype(np.float32) + 1
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def embeddings(field, frames):
    """Unit vectors ``(n, patches, D)`` as a network gives them."""
    return field.semantic.embeddings(field.semantic.directions(field.coefficients(Inputs(frames))))
