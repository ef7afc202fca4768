# SPDX-License-Identifier: MIT
"""``nervcodec decode``."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nervcodec.cli import options
from nervcodec.cli.output import remark, say
from nervcodec.errors import ConfigError
from nervcodec.formats.text import count_noun

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from nervcodec.decoding import NervVideo
    from nervcodec.events import Observer
    from nervcodec.media.audio import Sound


Frame = TypeVar("Frame")

_NOTE_MEMORY, _NOTE_PIXELS = 2 * 10**9, 20 * 10**9  # bytes above which decode prints a note


def _parse_patch(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4}),(\d{1,4})", text.strip())
    if not match:
        raise ConfigError(f"{text!r} is not a patch; write row,column such as 0,3 (both from 0)")
    return int(match[1]), int(match[2])


class _RangeCommand(click.Command):
    """A command whose option --frames takes ranges that begin with a minus sign."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put a space before such a range, since click takes it for an option where a value may be left out."""
        for number, (before, word) in enumerate(zip(["", *args], args, strict=False)):
            if before == "--frames" or word.startswith("--frames="):
                args[number] = re.sub(r"^(--frames=)?(?=-\d)", r"\1 ", word)
        return super().parse_args(ctx, args)


@click.command(cls=_RangeCommand, epilog="Example: nervcodec decode kitchen.nerv --frames 100:110 -o frames/")
@click.argument("file", type=options.EXISTING)
@click.option(
    "-o",
    "--output",
    help="A video (.mp4, .mkv), a folder for PNG images, or - (y4m on stdout). Default: FILE's name with .mp4.",
)
@click.option(
    "--frames",
    "frames",
    is_flag=False,
    flag_value="",
    metavar="[RANGE]",
    help="PNG images instead of a video: 10, 10:20, 10:20:2, 3.5s, 3s:5s; all without a range.",
)
@click.option(
    "--patch", type=options.Parsed("R,C", _parse_patch), help="Only the patch in this row and column, from 0."
)
@click.option("--scale", type=options.FiniteRange(0, 16, min_open=True), default=1.0, help="Scale by this factor.")
@click.option("--crf", type=click.IntRange(0, 51), default=18, show_default=True, help="Quality of the video written.")
@click.option(
    "--audio",
    type=click.Choice(["copy", "none"]),
    default="copy",
    show_default=True,
    help="Put the sound back, or not.",
)
@click.option("--tone-map", is_flag=True, help="HDR as 8-bit BT.709, not as 10-bit video in its own colours.")
@click.option("--base-only", is_flag=True, help="The base layer as it is stored, as .mp4, .mkv or .webm: at once.")
@options.hardware
@options.force
@options.quiet
@options.debug
def decode(
    file: str,
    output: str | None,
    frames: str | None,
    patch: tuple[int, int] | None,
    scale: float,
    crf: int,
    audio: str,
    tone_map: bool,
    base_only: bool,
    device: str,
    precision: str,
    force: bool,
    quiet: bool,
) -> None:
    """Rebuild frames from a .nerv container: a video, PNG images, or y4m on stdout."""
    if base_only:
        _write_base(file, output, audio, force, quiet)
        return
    from nervcodec.cli.progress import observer
    from nervcodec.decoding import NervVideo
    from nervcodec.outputs import require_free

    target, as_images = _output_path(file, output, frames is not None)
    if target is not None and not as_images:
        require_free(target, force, file)
    with observer(quiet) as progress, contextlib.ExitStack() as opened:
        progress.stage("Opening")
        video = opened.enter_context(NervVideo.open(file, device, precision))
        numbers = _frame_numbers(video, frames, patch)
        if patch is None:  # a patch alone takes a fraction of what is counted for whole frames
            _check_resources(video, len(numbers), scale, progress)
        in_hdr = not as_images and _is_written_in_hdr(video, target, patch, tone_map)
        if not in_hdr:
            _note_tone_mapping(video, tone_map, progress)
        decoded: Iterator[Any]
        if in_hdr:
            decoded = video.planes(numbers)
        elif patch is None:
            decoded = video.frames(numbers, scale, tone_map=True)
        else:
            decoded = video.patches(numbers, *patch, scale, tone_map=True)
        decoded = _with_progress(decoded, len(numbers), progress)
        if as_images:
            assert target is not None
            _write_images(video, target, numbers, decoded, force)
        else:
            sound = _convert_sound(
                video.sound() if audio == "copy" else None, ".y4m" if target is None else target.suffix, progress
            )
            if video.header.video.variable_frame_rate and not quiet:
                progress.note(f"{video.path.name}: variable frame rate; frames are repeated to keep their times")
            _write_video(video, target, decoded, in_hdr, _output_size(video, patch, scale), crf, sound)
    if target is not None and not quiet:
        say(
            f"{count_noun(len(numbers), 'PNG image')} in {target}"
            if as_images
            else f"{target}, {count_noun(len(numbers), 'frame')}"
        )


def _write_base(file: str, output: str | None, audio: str, force: bool, quiet: bool) -> None:
    """The base layer without any network: no torch."""
    from nervcodec.base.export import SUFFIXES, loses_alpha, require_base, sound_of, write_base
    from nervcodec.cli.progress import observer
    from nervcodec.formats.container import Container
    from nervcodec.outputs import require_free

    source_of = click.get_current_context().get_parameter_source
    for name in ("frames", "patch", "scale", "crf", "tone_map"):
        if source_of(name) == click.core.ParameterSource.COMMANDLINE:
            flag = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"--base-only gives the base layer as it is stored; {flag} has no effect with it")
    if output is not None and Path(output).suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"--base-only writes {', '.join(SUFFIXES)}, but {output} is none")
    with observer(quiet) as progress, Container.open(Path(file)) as opened:
        require_base(opened)
        target = _default_target(Path(file), False) if output is None else Path(output)
        require_free(target, force, file)
        if loses_alpha(opened, target.suffix):
            progress.note(f"{target.suffix} holds no alpha plane beside VP8 and VP9: left out (-o NAME.mkv keeps it)")
        sound = _convert_sound(sound_of(opened) if audio == "copy" else None, target.suffix, progress)
        count = write_base(opened, target, sound)
    if not quiet:
        say(f"{target}, {count_noun(count, 'frame')}")


def _output_path(file: str, output: str | None, as_images: bool) -> tuple[Path | None, bool]:
    """The output, None for stdout, and whether it is a folder for images."""
    if output == "-" and not as_images:
        return None, False
    if output is None:
        return _default_target(Path(file), as_images), as_images
    return Path(output), _is_folder(output, as_images)


def _frame_numbers(video: NervVideo, frames: str | None, patch: tuple[int, int] | None) -> range:
    """Numbers of the selected frames; an invalid range or patch is a usage error."""
    from nervcodec.ranges import parse_frames

    try:
        if patch is not None:
            video.grid.box(*patch)
        return parse_frames(frames and frames.strip(), video.frame_times_s, video.header.video.duration_s)
    except (ConfigError, IndexError) as error:
        raise click.UsageError(str(error)) from None


def _is_written_in_hdr(video: NervVideo, target: Path | None, patch: tuple[int, int] | None, tone_map: bool) -> bool:
    """Whether a video is written in HDR; what cannot be is wrong usage."""
    from nervcodec.media.writer import HDR_SUFFIXES, Y4M

    suffix = Y4M if target is None else target.suffix.lower()
    if video.hdr is None or tone_map or suffix == Y4M:
        return False
    remedy = "--tone-map writes 8-bit BT.709"
    if patch is not None:
        raise click.UsageError(f"{video.path}: is HDR ({video.hdr}), of which --patch cannot write a video; {remedy}")
    if suffix not in HDR_SUFFIXES:
        raise click.UsageError(
            f"{video.path}: is HDR ({video.hdr}), which goes into {', '.join(HDR_SUFFIXES)} only; {remedy}"
        )
    return True


def _note_tone_mapping(video: NervVideo, tone_map: bool, progress: Observer) -> None:
    """Note that HDR is tone-mapped without --tone-map, or that --tone-map has no effect."""
    if video.hdr is not None and not tone_map:
        progress.note(f"{video.path.name}: is HDR ({video.hdr}); it is tone-mapped to 8-bit BT.709")
    elif tone_map and video.header.base is None:
        progress.note(
            f"{video.path.name}: has no base layer, so its colours are not known to be HDR; --tone-map changes nothing"
        )


def _write_images(video: NervVideo, folder: Path, numbers: range, pixels: Iterator[np.ndarray], force: bool) -> None:
    from nervcodec.media.writer import write_pngs
    from nervcodec.outputs import require_folder

    require_folder(folder)
    digits = max(5, len(str(len(video) - 1)))
    existing = next((number for number in numbers if (folder / f"frame_{number:0{digits}d}.png").exists()), None)
    if existing is not None and not force:
        raise ConfigError(f"{folder}: holds frame {existing} already; use --force to overwrite")
    write_pngs(folder, zip(numbers, pixels, strict=True), digits)


def _write_video(
    video: NervVideo,
    target: Path | None,
    frames: Iterator[Any],
    in_hdr: bool,
    size: tuple[int, int],
    crf: int,
    sound: Sound | None,
) -> None:
    """Frames as a video file, or as y4m on stdout where there is no target."""
    from fractions import Fraction

    from nervcodec.media import writer

    constant_rate, base = video.at_constant_rate(frames), video.header.base
    form = writer.VideoFormat(*size, video.frame_rate, Fraction(*video.header.video.sample_aspect_ratio))
    if target is None:
        writer.write_y4m(sys.stdout.buffer, constant_rate, form)
    elif in_hdr and base is not None:
        writer.write_hdr(target, constant_rate, base.planes, video.light(), form, crf, sound)
    else:
        writer.write_video(target, constant_rate, form, crf, sound)


def _convert_sound(sound: Sound | None, suffix: str, progress: Observer) -> Sound | None:
    """The sound in a form that the format holds, with a note where it changes; None where the format holds none."""
    from nervcodec.media.audio import COPIED, FORMATS

    if sound is None:
        return None
    if suffix.lower() not in FORMATS:
        progress.note(f"{suffix} holds no sound: left out (-o NAME.mkv keeps it; --audio none stops this note)")
        return None
    converted = sound.fitting(suffix)
    if sound.lead_s and not converted.lead_s:
        progress.note(
            f"its sound begins {sound.lead_s:.2f} s before the first frame, which {suffix} does not hold: cut there "
            "(-o NAME.mkv keeps it)"
        )
    if converted.encoder != COPIED:
        advice = "-o NAME.mkv keeps it as it is, --audio none leaves it out"
        progress.note(
            f"{suffix} does not hold sound in {sound.codec}; it is encoded with {converted.encoder} ({advice})"
        )
    return converted


def _check_resources(video: NervVideo, count: int, scale: float, progress: Observer) -> None:
    """Note the memory of a large decode; refuse one that exceeds this machine's memory."""
    from nervcodec.device import physical_memory
    from nervcodec.formats.text import human_bytes

    needs = video.needs(count, scale)
    memory, pixels = human_bytes(needs.memory_bytes), human_bytes(needs.pixel_bytes)
    available = physical_memory()
    if available is not None and needs.memory_bytes > available:
        raise ConfigError(
            f"{video.path}: decoding takes about {memory} of memory; this machine has {human_bytes(available)}"
        )
    if needs.memory_bytes > _NOTE_MEMORY or needs.pixel_bytes > _NOTE_PIXELS:
        size = f"{video.header.video.width} x {video.header.video.height}"
        scaled = "" if scale == 1 else f", times {scale:g}"
        progress.note(
            f"{count_noun(count, 'frame')} of {size}{scaled}: about {memory} of memory, {pixels} before compression"
        )


def _with_progress(frames: Iterator[Frame], count: int, progress: Observer) -> Iterator[Frame]:
    """Frames, each reported to the observer."""
    progress.stage("Decoding", count)
    for frame in frames:
        yield frame
        progress.advance()


def _output_size(video: NervVideo, patch: tuple[int, int] | None, scale: float) -> tuple[int, int]:
    """(width, height) of the frames written."""
    width, height = video.header.video.width, video.header.video.height
    if patch is not None:
        _, _, width, height = video.grid.box(*patch)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _default_target(source: Path, images: bool) -> Path:
    """Beside the container, under its name, but never the name of the source in the header."""
    from nervcodec.formats.container import read_header
    from nervcodec.formats.text import sanitize_name, truncate_name
    from nervcodec.outputs import FRAMES_ENDING

    ending = FRAMES_ENDING if images else ".mp4"
    name = truncate_name(source.stem, ending)
    if sanitize_name(name).casefold() == read_header(source).video.source_name.casefold():
        name = truncate_name(source.stem, f".decoded{ending}")
        remark(f"writing {name}, since {source.name} was made from a source of the usual name")
    return source.with_name(name)


def _is_folder(output: str, as_images: bool) -> bool:
    from nervcodec.media.writer import VIDEO_SUFFIXES

    path = Path(output)
    if as_images and (path.suffix.lower() in VIDEO_SUFFIXES or output == "-"):
        raise click.UsageError(f"--frames writes PNG images into a folder, but {output} is none")
    if as_images or output.endswith(("/", "\\")) or os.path.isdir(path) or not path.suffix:
        return True
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise click.UsageError(f"{output}: unknown kind of video; there are {', '.join(VIDEO_SUFFIXES)}")
    return False
