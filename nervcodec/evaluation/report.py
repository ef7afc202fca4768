# SPDX-License-Identifier: MIT
"""An evaluation as one HTML page that needs nothing else: no network, no script, pictures inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from nervcodec.decoding import NervVideo
from nervcodec.errors import ConfigError, EncoderError
from nervcodec.evaluation import fidelity
from nervcodec.evaluation.compare import EvalReport, FrameFigures, open_original
from nervcodec.evaluation.plots import psnr_over_frames, require_plots
from nervcodec.formats.atomic import writing
from nervcodec.formats.text import escape
from nervcodec.metrics import AMPLIFIED, amplified_difference
from nervcodec.ranges import HELD_OUT
from nervcodec.search.moments import Moment, find_moments
from nervcodec.search.query import Query, QueryEncoder, Term
from nervcodec.search.render import draw_best_frame
from nervcodec.search.scores import VideoEmbeddings
from nervcodec.semantic.encoder import load

_EXTREMES, _QUERIES = 3, 3
_WIDTH = 420  # of a picture, in pixels


def write_report(
    path: str | Path,
    original: str | Path,
    report: EvalReport,
    parts: dict[str, int],
    out: str | Path,
    device: str = "auto",
    precision: str = "auto",
) -> None:
    """Write the page.

    Args:
        path: the container.
        original: its source.
        report: what :func:`nervcodec.evaluate` found.
        parts: bytes of the container by what they are for.
        out: the page; written whole or not at all.
        device, precision: as :func:`nervcodec.open`.

    Raises:
        ConfigError: the extra ``plots`` is not installed, or the page cannot be written.
    """
    require_plots()
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"data_uri": _data_uri, "picture": _picture}
    text = resources.files("nervcodec.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    with NervVideo.open(path, device, precision) as video:
        page = environment.from_string(text).render(
            title=escape(f"{video.path.name} against {Path(original).name}"),
            header=video.header,
            report=report,
            parts=parts,
            plot=psnr_over_frames(*zip(*((f.psnr_db, f.role == HELD_OUT) for f in report.per_frame), strict=True)),
            extremes=_extremes(video, Path(original), report.per_frame),
            amplified=AMPLIFIED,
            moments=[(query, moment, draw_best_frame(video, moment, _WIDTH)) for query, moment in _best_moments(video)],
        )
    with writing(Path(out), ConfigError) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _extremes(
    video: NervVideo, original: Path, frames: Sequence[FrameFigures]
) -> dict[str, list[tuple[FrameFigures, list[Image.Image]]]]:
    """The worst and the best frames under their headings, each with source, decoded frame and amplified difference."""
    ascending = sorted(frames, key=lambda frame: frame.psnr_db)
    worst = ascending[:_EXTREMES]
    best = [frame for frame in ascending[::-1][:_EXTREMES] if frame not in worst]
    numbers = {frame.frame for frame in (*worst, *best)}
    pictures = {}
    for number, source in enumerate(open_original(video, original).frames()):
        if number in numbers:
            decoded = video[number]
            images = (np.array(source), decoded, amplified_difference(decoded, source))
            pictures[number] = [Image.fromarray(image) for image in images]
    headings = {"Worst frames": worst, "Best frames": best}
    return {heading: [(f, pictures[f.frame]) for f in chosen] for heading, chosen in headings.items()}


def _best_moments(video: NervVideo) -> list[tuple[str, Moment]]:
    """The shipped queries that match best; none where there are no embeddings or their encoder cannot be loaded."""
    if video.header.semantic is None:
        return []
    try:
        encoder = load(video.header.semantic.encoder, video.hardware.device)
    except EncoderError:
        return []
    embeddings = VideoEmbeddings.from_video(video)

    def best_of(query: str) -> list[Moment]:
        return find_moments([embeddings], QueryEncoder(Query((Term(query),)), encoder=encoder), 1)

    found = [(query, moment) for query in fidelity.shipped_queries() for moment in best_of(query)]
    return sorted(found, key=lambda pair: -pair[1].score)[:_QUERIES]


def _picture(image: Image.Image) -> str:
    """A small JPEG as a data URI."""
    height = max(1, round(image.height * _WIDTH / image.width))
    buffer = io.BytesIO()
    image.convert("RGB").resize((_WIDTH, height), Image.Resampling.LANCZOS).save(buffer, format="JPEG", quality=88)
    return _data_uri(buffer.getvalue(), "image/jpeg")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
