# SPDX-License-Identifier: MIT
"""Plots, through matplotlib (the extra ``plots``)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nervcodec.errors import ConfigError
from nervcodec.formats.atomic import writing
from nervcodec.formats.text import escape


def require_plots() -> None:
    """Find out before any work whether plots and reports can be made.

    Raises:
        ConfigError: matplotlib or Jinja2 is not installed.
    """
    if not (find_spec("matplotlib") and find_spec("jinja2")):
        raise ConfigError("plots and reports need matplotlib and Jinja2: pip install 'nervcodec[plots]'")


def rate_distortion(curves: Mapping[str, Sequence[tuple[float, float]]], title: str, path: Path) -> None:
    """Draw PSNR over bytes.

    Args:
        curves: points (bytes, dB) by codec; one of a single point is drawn as a star.
        title: above the plot.
        path: its suffix chooses the format.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    require_plots()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="tight")
    axes = figure.subplots()
    for label, points in curves.items():
        kilobytes, psnr = zip(*sorted((size / 1000, db) for size, db in points), strict=True)
        style, size = ("*", 12) if len(points) == 1 else ("o-", 5)
        axes.plot(kilobytes, psnr, style, markersize=size, label=label)
    axes.set(xlabel="KB (1,000 bytes)", ylabel="PSNR, RGB (dB)", xscale="log")
    axes.set_title(escape(title), parse_math=False)  # a file's name may hold dollar signs
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with writing(path, ConfigError, ValueError) as temporary:  # a ValueError for an unknown format
        figure.savefig(temporary, dpi=120, format=path.suffix.lstrip(".") or "png")


def psnr_over_frames(psnr_db: Sequence[float], held_out: Sequence[bool]) -> bytes:
    """PNG of PSNR over frames, held-out ones as dots; without a background, legible on white and on black.

    Args:
        psnr_db: of every frame.
        held_out: whether each frame was held out from the fit.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.2), layout="tight")
    axes = figure.subplots()
    numbers, values, dots = np.arange(len(psnr_db)), np.array(psnr_db), np.array(held_out)
    axes.plot(numbers[~dots], values[~dots], color="#3b6ea8", linewidth=1.2)
    axes.plot(numbers[dots], values[dots], ".", color="#c2542d")
    axes.grid(alpha=0.3)
    axes.tick_params(colors="gray")
    axes.spines[:].set_color("gray")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=240, transparent=True)
    return buffer.getvalue()
