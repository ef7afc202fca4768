# SPDX-License-Identifier: MIT
"""Rate-distortion plots, through matplotlib (the extra ``plots``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nervcodec.errors import ConfigError
from nervcodec.formats.atomic import writing
from nervcodec.formats.names import shown


def require_matplotlib() -> None:
    """Find out before any work whether plots can be drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
    except ImportError:
        raise ConfigError("a plot needs matplotlib: pip install 'nervcodec[plots]'") from None


def rate_distortion(curves: Mapping[str, Sequence[tuple[float, float]]], title: str, path: Path) -> None:
    """Draw PSNR over bytes.

    Args:
        curves: points (bytes, dB) by codec; one of a single point is drawn as a star.
        title: above the plot.
        path: its suffix chooses the format.

    Raises:
        ConfigError: matplotlib is not there, or the file cannot be written.
    """
    require_matplotlib()
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for label, points in curves.items():
        kilobytes, psnr = zip(*sorted((size / 1000, db) for size, db in points), strict=True)
        axes.plot(
            kilobytes, psnr, "*" if len(points) == 1 else "o-", markersize=12 if len(points) == 1 else 5, label=label
        )
    axes.set(xlabel="KB (1,000 bytes)", ylabel="PSNR, RGB (dB)", xscale="log")
    axes.set_title(shown(title), parse_math=False)  # a file's name may hold dollar signs
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.tight_layout()
    try:
        with writing(path, ConfigError, ValueError) as temporary:  # a ValueError for an unknown format
            figure.savefig(temporary, dpi=120, format=path.suffix.lstrip(".") or "png")
    finally:
        plt.close(figure)
