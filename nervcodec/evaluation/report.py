# SPDX-License-Identifier: MIT
"""An evaluation as one HTML page that needs nothing else: no network, no script, pictures inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from nervcodec.decoding import OpenVideo
from nervcodec.errors import ConfigError, EncoderError
from nervcodec.evaluation import fidelity
from nervcodec.evaluation.compare import EvalReport, FrameFigures, open_original
from nervcodec.formats.atomic import writing
from nervcodec.formats.names import shown
from nervcodec.metrics import AMPLIFIED, amplified_difference
from nervcodec.search.ask import Answer, answer
from nervcodec.search.index import EmbeddingIndex
from nervcodec.search.moments import Moment, find_moments
from nervcodec.search.pictures import best_frame
from nervcodec.search.query import Query, Term
from nervcodec.semantic.encoder import SemanticEncoder, load
from nervcodec.split import FITTED, HELD_OUT

_EXTREMES, _QUERIES = 3, 3
_WIDTH = 420  # of a picture
_PLOT = (960, 240)

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1b1b1b }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top }
th { font-weight: 600; border-bottom: 1px solid #bbb } td.n { text-align: right; font-variant-numeric: tabular-nums }
figure { margin: .8rem 0 } figure img { max-width: 32%; margin-right: .6% } figcaption { color: #555 }
.bar { background: #3b6ea8; height: .8rem } svg { width: 100%; height: auto } .faint { color: #555 }
"""


def write_report(
    path: str | Path,
    original: str | Path,
    figures: EvalReport,
    parts: dict[str, int],
    out: str | Path,
    device: str = "auto",
    precision: str = "auto",
) -> None:
    """Write the page.

    Args:
        path: the container.
        original: its source.
        figures: what :func:`nervcodec.evaluate` found.
        parts: bytes of the container by what they are for.
        out: the page; written whole or not at all.
        device, precision: as :func:`nervcodec.open`.

    Raises:
        ConfigError: the page cannot be written.
    """
    with OpenVideo.at(path, device, precision) as video:
        sections = [
            _summary(video, figures),
            _plot(figures.per_frame),
            _parts(parts),
            _against(figures),
            _extremes(video, Path(original), figures.per_frame),
            _found(video),
        ]
    title = escape(shown(f"{video.path.name} against {Path(original).name}"))
    page = f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>\n"
    page += f"<h1>{title}</h1>\n" + "\n".join(section for section in sections if section) + "\n</html>\n"
    with writing(Path(out), ConfigError) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Cells are escaped; numbers stand on the right."""

    def cell(value: object) -> str:
        kind = " class=n" if isinstance(value, (int, float)) else ""
        text = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
        return f"<td{kind}>{escape(text)}</td>"

    top = "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>" if any(head) else ""
    return f"<table>{top}{''.join('<tr>' + ''.join(map(cell, row)) + '</tr>' for row in rows)}</table>"


def _summary(video: OpenVideo, figures: EvalReport) -> str:
    facts, fit = video.header.video, video.header.fit
    rows: list[tuple[str, object]] = [
        ("frames", f"{facts.frame_count} of {facts.width} x {facts.height}, {facts.fps:.6g} a second"),
        ("size", f"{figures.size_bytes:,} bytes, {figures.rate_bpp:.4f} bits per pixel"),
        *figures.quality(),
        ("decoding", f"{figures.decode_fps:.1f} frames/s"),
        ("fit", f"{fit.fit_s:.1f} s, {fit.steps} steps"),
    ]
    if figures.source_bytes:
        rows.insert(2, ("source", f"{figures.source_bytes:,} bytes, audio included"))
    if figures.held_out_frames:
        fitted, held_out = (figures.of_role(role)["psnr"] for role in (FITTED, HELD_OUT))
        rows.append(("fitted and held-out frames", f"{fitted:.2f} dB and {held_out:.2f} dB"))
    for role, found in figures.fidelity.items():
        ranking = found.retrieval
        where = " (held out)" if role == HELD_OUT else ""
        text = f"recall@10 {ranking['recall_at_10']:.3f}, nDCG@10 {ranking['ndcg_at_10']:.3f}, "
        text += f"rank correlation {ranking['rank_correlation']:.3f}, "
        rows.append(
            (f"search against its reference{where}", text + f"cosine {found.semantic['centred_cosine']:.3f} centred")
        )
    return _table(("", ""), rows)


def _plot(frames: Sequence[FrameFigures]) -> str:
    """PSNR over frames as an SVG; held-out frames as dots."""
    width, height = _PLOT
    values = np.array([frame.psnr_db for frame in frames])
    low, high = np.floor(values.min()), np.ceil(values.max() + 1e-9)
    high = max(high, low + 1)
    x = np.array([frame.frame for frame in frames]) * (width - 60) / max(len(frames) - 1, 1) + 50
    y = (height - 30) - (values - low) / (high - low) * (height - 45)
    held_out = [frame.role == HELD_OUT for frame in frames]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b, out in zip(x, y, held_out, strict=True) if not out)
    dots = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="#c2542d"/>'
        for a, b, out in zip(x, y, held_out, strict=True)
        if out
    )
    ticks = ""
    for level in np.linspace(low, high, 5):
        at = (height - 30) - (level - low) / (high - low) * (height - 45)
        ticks += f'<line x1="50" x2="{width - 10}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
        ticks += f'<text x="44" y="{at + 4:.1f}" text-anchor="end" font-size="12">{level:.4g}</text>'
    for number in np.linspace(0, len(frames) - 1, 6).round().astype(int):
        ticks += f'<text x="{x[number]:.1f}" y="{height - 10}" text-anchor="middle" font-size="12">{number}</text>'
    note = "<p class=faint>Dots: frames that were held out from the fit.</p>" if any(held_out) else ""
    return (
        f'<h2>PSNR of each frame, dB</h2><svg viewBox="0 0 {width} {height}" role="img">{ticks}'
        f'<polyline points="{line}" fill="none" stroke="#3b6ea8" stroke-width="1.5"/>{dots}</svg>{note}'
    )


def _parts(parts: dict[str, int]) -> str:
    total = max(sum(parts.values()), 1)
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td class=n>{count:,}</td><td class=n>{count / total:.1%}</td>"
        f'<td style="width:20rem"><div class=bar style="width:{100 * count / total:.1f}%"></div></td></tr>'
        for name, count in parts.items()
    )
    return f"<h2>Bytes by part</h2><table>{rows}</table>"


def _against(figures: EvalReport) -> str:
    if not figures.against:
        return ""
    own = ("this file", "", figures.size_bytes, figures.psnr_db, figures.ms_ssim or "", figures.vmaf or "")
    rows: list[Sequence[object]] = [own]
    for curve in figures.against:
        for point in curve:
            quality = point.quality
            measures = (quality.psnr_db, quality.ms_ssim or "", quality.vmaf or "")
            rows.append((point.codec, point.setting, point.size_bytes, *measures))
    return "<h2>Other codecs</h2>" + _table(("codec", "setting", "bytes", "PSNR", "MS-SSIM", "VMAF"), rows)


def _extremes(video: OpenVideo, original: Path, frames: Sequence[FrameFigures]) -> str:
    """Best and worst frames: source, decoded, amplified difference."""
    order = sorted(frames, key=lambda frame: frame.psnr_db)
    worst = order[:_EXTREMES]
    best = [frame for frame in order[::-1][:_EXTREMES] if frame not in worst]
    wanted = {frame.frame for frame in (*worst, *best)}
    sources = {}
    for number, source in enumerate(open_original(video, original).frames()):
        if number in wanted:
            sources[number] = np.array(source)
    html = ""
    for title, chosen in (("Worst frames", worst), ("Best frames", best)):
        pictures = ""
        for frame in chosen:
            decoded, source = video[frame.frame], sources[frame.frame]
            images = (source, decoded, amplified_difference(decoded, source))
            shown = "".join(_image(Image.fromarray(image)) for image in images)
            held_out = ", held out" if frame.role == HELD_OUT else ""
            caption = f"frame {frame.frame}, {frame.psnr_db:.2f} dB{held_out}"
            pictures += f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"
        if pictures:
            html += f"<h2>{title}</h2><p class=faint>Source, decoded, difference x {AMPLIFIED}.</p>{pictures}"
    return html


def _answering(text: str, encoder: SemanticEncoder) -> Callable[[str], Answer]:
    """What a text asks of the container's encoder, however often it is asked."""
    asked = answer(Query((Term(text),)), encoder)
    return lambda _encoder: asked


def _found(video: OpenVideo) -> str:
    """What the three shipped queries find that match best."""
    if video.header.semantic is None:
        return ""
    try:
        encoder = load(video.header.semantic.encoder, video.hardware.device)
    except EncoderError:
        return ""
    index = EmbeddingIndex.of(video)
    moments: list[tuple[str, Moment]] = []
    for query in fidelity.shipped_queries():
        moments += [(query, moment) for moment in find_moments([index], _answering(query, encoder), 1)]
    moments.sort(key=lambda pair: -pair[1].score)
    figures = ""
    for query, moment in moments[:_QUERIES]:
        picture = best_frame(video, moment, _WIDTH)
        caption = f"&ldquo;{escape(query)}&rdquo;: {moment.score:.3f}, {moment.start_s:.2f} s to {moment.end_s:.2f} s"
        figures += f"<figure>{_image(picture)}<figcaption>{caption}</figcaption></figure>"
    return f"<h2>What search finds</h2><p class=faint>The best matches among the shipped queries.</p>{figures}"


def _image(image: Image.Image) -> str:
    height = max(1, round(image.height * _WIDTH / image.width))
    buffer = io.BytesIO()
    image.convert("RGB").resize((_WIDTH, height), Image.Resampling.LANCZOS).save(buffer, format="JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'
