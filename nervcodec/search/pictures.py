# SPDX-License-Identifier: MIT
"""Moments to look at: their best frames with the patch outlined, a contact sheet of them, and short clips."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from nervcodec.decoding import NervVideo
from nervcodec.errors import ConfigError, explained
from nervcodec.formats.atomic import writing
from nervcodec.formats.text import shown, within
from nervcodec.media.writer import write_video
from nervcodec.outputs import require_free
from nervcodec.search.moments import Moment

_OUTLINE = (255, 64, 64)
_TILE, _MARGIN, _CAPTION = 320, 12, 34  # pixels
_COLUMNS = 4
_KEPT_OPEN = 4  # containers
_STEM_BYTES = 80  # of a container's name in those of its clips
_INK, _PAPER, _FAINT = (24, 24, 24), (255, 255, 255), (110, 110, 110)

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Open = Callable[[Path], NervVideo]  # gives the video of a container


class Opener:
    """Opens containers and keeps the last few open; a video may be used until so many others were asked for.

    Args:
        device, precision: as :func:`nervcodec.open`.
    """

    def __init__(self, device: str = "auto", precision: str = "auto"):
        self._device, self._precision = device, precision
        self._open: dict[Path, NervVideo] = {}

    def __call__(self, path: Path) -> NervVideo:
        """The video of a container.

        Raises:
            ContainerError: it cannot be opened.
        """
        video = self._open.pop(path, None) or NervVideo.at(path, self._device, self._precision)
        self._open[path] = video  # the latest is the last
        if len(self._open) > _KEPT_OPEN:
            self._open.pop(next(iter(self._open))).close()
        return video

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1].close()


def best_frame(video: NervVideo, moment: Moment, width: int) -> Image.Image:
    """The moment's best frame, decoded, scaled to ``width`` pixels, its patch outlined."""
    image = Image.fromarray(next(video.frames([moment.frame], tone_map=True)))
    scale = width / image.width
    image = image.resize((width, max(1, round(image.height * scale))), Image.Resampling.LANCZOS)
    x, y, w, h = (round(side * scale) for side in moment.box)
    thickness = max(1, width // 100)
    ImageDraw.Draw(image).rectangle((x, y, max(x, x + w - 1), max(y, y + h - 1)), outline=_OUTLINE, width=thickness)
    return image


def contact_sheet(
    moments: Sequence[Moment], title: str, captions: Sequence[tuple[str, str]], open_file: Open
) -> Image.Image:
    """Best frames in rows of four, with two lines below each.

    Args:
        moments: at least one.
        title: above all.
        captions: two lines for each moment.
        open_file: such as an :class:`Opener`.
    """
    tiles = [best_frame(open_file(moment.file), moment, _TILE) for moment in moments]
    columns = min(_COLUMNS, len(tiles))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + _CAPTION + _MARGIN for row in rows]
    head = 32
    size = (columns * (_TILE + _MARGIN) + _MARGIN, head + _MARGIN + sum(heights))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(18), ImageFont.load_default(13)
    draw.text((_MARGIN, _MARGIN), _fitting(draw, title, large, size[0] - 2 * _MARGIN), _INK, large)
    top = head + _MARGIN
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        for column, tile in enumerate(row):
            left = _MARGIN + column * (_TILE + _MARGIN)
            sheet.paste(tile, (left, top))
            lines = captions[number * columns + column]
            for index, (line, ink) in enumerate(zip(lines, (_INK, _FAINT), strict=True)):
                place = (left, top + tile.height + 2 + 15 * index)
                draw.text(place, _fitting(draw, line, small, _TILE), ink, small)
        top += height
    return sheet


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: _Font, width: int) -> str:
    """The text, with its middle left out where it is wider than ``width`` pixels."""
    text = shown(text)
    kept = len(text)
    cut = text
    while draw.textlength(cut, font) > width and kept > 2:
        kept -= 1
        cut = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return cut


def write_image(image: Image.Image, path: Path) -> None:
    """Write an image beside its target and rename it.

    Raises:
        ConfigError: the format is unknown or the place cannot be written.
    """
    with writing(path, ConfigError, ValueError) as temporary:  # a ValueError for what a format does not hold
        image.save(temporary, format=Image.registered_extensions().get(path.suffix.lower(), "PNG"))


def write_clips(moments: Sequence[Moment], folder: Path, open_file: Open, force: bool = False) -> Iterator[Path]:
    """Decode each moment to a short video; the names carry rank, file and first and last frame.

    Yields:
        Each file once it is written.

    Raises:
        ConfigError: a file is there already and ``force`` is not given, or the folder cannot be made.
        VideoError: a clip cannot be written.
    """
    with explained(f"{folder}: cannot be made", ConfigError):
        folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / clip_name(rank, moment) for rank, moment in enumerate(moments, 1)]
    for target in targets:
        require_free(target, force)
    for moment, target in zip(moments, targets, strict=True):
        video = open_file(moment.file)
        facts = video.header.video
        numbers = range(moment.first_frame, moment.last_frame + 1)
        frames = video.at_constant_rate(video.frames(numbers, tone_map=True), numbers)
        sound = video.sound(moment.start_s, moment.end_s - moment.start_s)
        sound = sound.fitting(target.suffix) if sound is not None else None
        aspect = Fraction(*facts.sample_aspect_ratio)
        write_video(target, frames, facts.width, facts.height, video.frame_rate, aspect, sound=sound)
        yield target


def clip_name(rank: int, moment: Moment) -> str:
    """Of the rank-th best moment's clip, short enough for any file system."""
    stem = re.sub(r"[^\w.-]+", "_", moment.file.stem).lstrip(".-") or "video"
    return f"{rank:02d}_{within(stem, limit=_STEM_BYTES)}_{moment.first_frame}-{moment.last_frame}.mp4"
