# SPDX-License-Identifier: MIT
"""Pictures of moments: best frames with the patch outlined, contact sheets of them, and short clips."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from nervcodec.decoding import NervVideo
from nervcodec.errors import ConfigError, wrap_os_error
from nervcodec.formats.atomic import writing
from nervcodec.formats.text import escape, timecode, truncate_name
from nervcodec.media.writer import VideoFormat, write_video
from nervcodec.outputs import require_free
from nervcodec.search.moments import Moment

_OUTLINE = (255, 64, 64)
_TILE, _MARGIN, _CAPTION = 320, 12, 34  # pixels
_COLUMNS = 4
_OPEN_VIDEOS = 4
_STEM_BYTES = 80  # of the container's name in the name of a clip
_TEXT, _BACKGROUND, _GREY = (24, 24, 24), (255, 255, 255), (110, 110, 110)

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
OpenVideo = Callable[[Path], NervVideo]


class VideoCache:
    """Opens containers and keeps the last four open.

    Args:
        device, precision: as :func:`nervcodec.open`.
    """

    def __init__(self, device: str = "auto", precision: str = "auto"):
        self._device, self._precision = device, precision
        self._open: dict[Path, NervVideo] = {}

    def __call__(self, path: Path) -> NervVideo:
        """An open container, closed when four others have been opened.

        Raises:
            ContainerError: it cannot be opened.
        """
        video = self._open.pop(path, None) or NervVideo.open(path, self._device, self._precision)
        self._open[path] = video  # at the end: the least recently used one is the first
        if len(self._open) > _OPEN_VIDEOS:
            self._open.pop(next(iter(self._open))).close()
        return video

    def __enter__(self) -> VideoCache:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1].close()


def draw_best_frame(video: NervVideo, moment: Moment, width: int) -> Image.Image:
    """The moment's best frame, decoded, scaled to ``width`` pixels, its patch outlined."""
    image = Image.fromarray(next(video.frames([moment.frame], tone_map=True)))
    scale = width / image.width
    image = image.resize((width, max(1, round(image.height * scale))), Image.Resampling.LANCZOS)
    x, y, w, h = (round(side * scale) for side in moment.box)
    thickness = max(1, width // 100)
    ImageDraw.Draw(image).rectangle((x, y, max(x, x + w - 1), max(y, y + h - 1)), outline=_OUTLINE, width=thickness)
    return image


def draw_contact_sheet(moments: Sequence[Moment], title: str, open_video: OpenVideo) -> Image.Image:
    """Best frames in rows of four, with score, time, file and frame number below each.

    Args:
        moments: at least one.
        title: at the top.
        open_video: such as a :class:`VideoCache`.
    """
    tiles = [draw_best_frame(open_video(moment.file), moment, _TILE) for moment in moments]
    columns = min(_COLUMNS, len(tiles))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + _CAPTION + _MARGIN for row in rows]
    head = 32
    size = (columns * (_TILE + _MARGIN) + _MARGIN, head + _MARGIN + sum(heights))
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(18), ImageFont.load_default(13)
    draw.text((_MARGIN, _MARGIN), _ellipsize(draw, title, large, size[0] - 2 * _MARGIN), _TEXT, large)
    top = head + _MARGIN
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        for column, tile in enumerate(row):
            left = _MARGIN + column * (_TILE + _MARGIN)
            sheet.paste(tile, (left, top))
            m = moments[number * columns + column]
            lines = (
                f"{m.score:.3f}   {timecode(m.start_s)} - {timecode(m.end_s)}",
                f"{m.file.name}, frame {m.frame}",
            )
            for index, (line, colour) in enumerate(zip(lines, (_TEXT, _GREY), strict=True)):
                draw.text(
                    (left, top + tile.height + 2 + 15 * index), _ellipsize(draw, line, small, _TILE), colour, small
                )
        top += height
    return sheet


def _ellipsize(draw: ImageDraw.ImageDraw, text: str, font: _Font, width: int) -> str:
    """The text, its middle replaced by an ellipsis if it is wider than ``width`` pixels."""
    text = escape(text)
    kept = len(text)
    cut = text
    while draw.textlength(cut, font) > width and kept > 2:
        kept -= 1
        cut = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return cut


def write_image(image: Image.Image, path: Path) -> None:
    """Write an image beside its target and rename it.

    Raises:
        ConfigError: the format is unknown or the path cannot be written.
    """
    with writing(path, ConfigError, ValueError) as temporary:  # ValueError: a format without such images
        image.save(temporary, format=Image.registered_extensions().get(path.suffix.lower(), "PNG"))


def write_clips(moments: Sequence[Moment], folder: Path, open_video: OpenVideo, force: bool = False) -> Iterator[Path]:
    """Decode each moment to a short video named by rank, file and first and last frame.

    Yields:
        Each path when its file is complete.

    Raises:
        ConfigError: a file exists and ``force`` is not set, or the folder cannot be created.
        VideoError: a clip cannot be written.
    """
    with wrap_os_error(f"{folder}: cannot be created", ConfigError):
        folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / clip_name(rank, moment) for rank, moment in enumerate(moments, 1)]
    for target in targets:
        require_free(target, force, *{moment.file for moment in moments})
    for moment, target in zip(moments, targets, strict=True):
        video = open_video(moment.file)
        info = video.header.video
        numbers = range(moment.first_frame, moment.last_frame + 1)
        frames = video.at_constant_rate(video.frames(numbers, tone_map=True), numbers)
        sound = video.sound(moment.start_s, moment.end_s - moment.start_s)
        sound = sound.fitting(target.suffix) if sound is not None else None
        form = VideoFormat(info.width, info.height, video.frame_rate, Fraction(*info.sample_aspect_ratio))
        write_video(target, frames, form, sound=sound)
        yield target


def clip_name(rank: int, moment: Moment) -> str:
    """Name of the clip of the rank-th best moment, short enough for any file system."""
    stem = re.sub(r"[^\w.-]+", "_", moment.file.stem).lstrip(".-") or "video"
    return f"{rank:02d}_{truncate_name(stem, limit=_STEM_BYTES)}_{moment.first_frame}-{moment.last_frame}.mp4"
