# SPDX-License-Identifier: MIT
"""A stream copy: a source's own video packets in a Matroska file, and their decoding to exactly the source's frames."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from nervcodec import threads
from nervcodec.errors import ContainerError, VideoError, wrap_os_error
from nervcodec.formats.header import COPY, BaseHeader, PlaneFormat
from nervcodec.media import decoder, matroska
from nervcodec.media.decoder import STALL_TIMEOUT_S, PieceReader
from nervcodec.media.planes import Planes, plane_filters, to_planes
from nervcodec.media.reader import Filters, Samples, checksum, is_transposed
from nervcodec.media.source import VideoInfo
from nervcodec.threads import StalledError, read_ahead

# FFmpeg would hide damage: `explode` makes an error of what it complains of. dav1d decodes one frame after the other:
# where one call gives a frame and an error, PyAV drops the error.
_STRICT = {"err_detect": "explode", "max_frame_delay": "1"}
_READ_BYTES = 1 << 18  # at once
_AHEAD = 4  # frames that may wait
_REMEDY = "--base av1 encodes it again"
# Live: of no stated length, so that what begins at a cluster is a whole file, too.
_MATROSKA = {"live": "1", "fflags": "+bitexact", "allow_raw_vfw": "1"}
_MATROSKA |= {"cluster_time_limit": "5000", "cluster_size_limit": str(5 << 20)}  # the longest and largest
_CLUSTER = b"\x1f\x43\xb6\x75"  # its first bytes
_PIECE = 1 << 20  # bytes read at once
_APART_S = 5.0  # from one entry to the next, at least


def decode(
    pieces: Iterable[bytes],
    form: PlaneFormat,
    width: int,
    height: int,
    frames: int,
    preroll_frames: int = 0,
    tolerates_errors: bool = False,
    to_end: bool = True,
) -> Generator[Planes, None, None]:
    """Decode frames of a stream. Closing the generator closes the decoder.

    Args:
        pieces: of the Matroska file, in order.
        form: what its samples become, as :func:`nervcodec.media.reader.plane_format` returns it for the source.
        width, height: of a frame, upright.
        frames: how many are decoded.
        preroll_frames: decoded frames before them that are not yielded.
        tolerates_errors: decoder errors are ignored, as they are where a source is read.
        to_end: the stream has no further frames, which is an error where it does.

    Yields:
        One frame, ``frames`` times.

    Raises:
        ContainerError: the stream is damaged, or its frames have another size or format.
    """
    chain = Filters(Path("copied stream"), plane_filters(form, height, width))
    count, held = -preroll_frames, None
    with contextlib.closing(decoded(pieces, (width, height), tolerates_errors)) as source_frames:
        for frame in source_frames:
            count += 1
            if count > frames:
                raise ContainerError(f"the copied stream is damaged: more than {frames} frames could be decoded")
            if held is not None:  # the last one is held back until the end of the stream is verified
                yield held
                held = None
            if count > 0:
                try:
                    held = to_planes(chain.frame(frame), form, height, width)
                except VideoError as error:
                    raise ContainerError(f"the copied stream is damaged: {error}") from None
            if count == frames and not to_end:
                break
    if count < frames or held is None:
        raise ContainerError(f"the copied stream is damaged: only {max(count, 0)} of {frames} frames could be decoded")
    yield held


def decoded(
    pieces: Iterable[bytes], size: tuple[int, int], tolerates_errors: bool = False
) -> Generator[av.VideoFrame, None, None]:
    """All frames of a stream as they are decoded in a background thread, not yet upright.

    Args:
        pieces: of the Matroska file, in order.
        size: (width, height) of a frame once it is upright.
        tolerates_errors: decoder errors are ignored, as they are where a source is read.

    Raises:
        ContainerError: the decoder finds an error that is not ignored, gives no frame for 30 s, or a frame has another
            size.
    """
    count = 0
    with contextlib.closing(read_ahead(_decoded(pieces, size, tolerates_errors), _AHEAD, STALL_TIMEOUT_S)) as frames:
        try:
            for frame in frames:
                yield frame
                count += 1
        except StalledError:
            what = f"nothing came after frame {count} for {STALL_TIMEOUT_S:g} s"
            raise ContainerError(f"the copied stream cannot be decoded: {what}") from None


def _decoded(pieces: Iterable[bytes], size: tuple[int, int], tolerates_errors: bool) -> Iterator[av.VideoFrame]:
    count, reader = 0, PieceReader(pieces)
    try:
        with av.open(reader, format="matroska", buffer_size=_READ_BYTES, metadata_errors="replace") as file:
            if not (stream := next(iter(file.streams.video), None)) or stream.codec_context is None:
                raise ContainerError(_damage(count, "it holds no video"))
            # As the source is read: frames decoded side by side are concealed differently from run to run.
            stream.thread_type = "NONE" if tolerates_errors else "AUTO"
            stream.codec_context.thread_count = threads.codec_threads
            stream.codec_context.options = {} if tolerates_errors else dict(_STRICT)
            for packet in file.demux(stream):
                try:
                    frames = stream.decode(packet if packet.size else None)
                except av.FFmpegError:
                    if not tolerates_errors:
                        raise
                    continue
                for frame in frames:
                    if frame.is_corrupt and not tolerates_errors:
                        raise ContainerError(_damage(count, "a frame that could not be decoded as a whole"))
                    frame_size = frame.width, frame.height
                    if (frame_size[::-1] if is_transposed(frame) else frame_size) != size:
                        raise ContainerError(_damage(count, f"a frame of {frame_size[0]}x{frame_size[1]}"))
                    yield frame
                    count += 1
        reader.raise_error()
    except av.FFmpegError as error:
        reader.raise_error()
        raise ContainerError(_damage(count, str(error.strerror))) from None


def _damage(count: int, reason: str) -> str:
    return f"the copied stream is damaged near frame {count} ({reason})"


@dataclass
class Packets:
    """Packets of a video stream in a Matroska file.

    Attributes:
        file: where they are.
        source: of whose they are.
        form: of the decoded samples.
        codec: FFmpeg's name.
        size: (width, height) as coded, before rotation.
        preroll_frames: frames at the beginning that no player shows.
        random_access_points: (frame, byte) of each verified place where decoding may begin. Known once all frames were
            decoded; empty where only the beginning will do.
        tolerates_errors: decoder errors had to be ignored to get the frames of the source. Known then, too.
    """

    file: Path
    source: VideoInfo
    form: PlaneFormat
    codec: str
    size: tuple[int, int]
    preroll_frames: int
    random_access_points: list[tuple[int, int]] = field(default_factory=list)
    tolerates_errors: bool = False

    @classmethod
    def of(cls, source: VideoInfo, form: PlaneFormat, file: Path) -> Packets:
        """Take the packets of a source.

        Args:
            source: a scanned file.
            form: what its samples become.
            file: to be written.

        Raises:
            VideoError: it is a folder of images, or its packets cannot go into Matroska.
        """
        require_packets(source)
        with source.snapshot.watched(), decoder.opened(source.path, source.input.frame_rate) as container:
            stream = decoder.videos(container)[source.input.number]
            try:
                preroll_frames = _copy(decoder.packets(container, stream), stream, file)
            except av.FFmpegError as error:
                what = "its packets cannot go into Matroska as they are"
                raise VideoError(f"{source.path}: {what} ({error.strerror}); {_REMEDY}") from None
        with decoder.opened(file) as container:
            (stream,) = container.streams.video
            return cls(file, source, form, decoder.codec_name(stream), (stream.width, stream.height), preroll_frames)

    @property
    def facts(self) -> BaseHeader:
        """The header entry of the base layer, once all frames were decoded."""
        random_access_points = tuple(self.random_access_points) if len(self.random_access_points) > 1 else ()
        return BaseHeader(
            COPY,
            self.codec,
            self.form,
            *self.size,
            psnr_db=100.0,
            skipped=self.preroll_frames,
            entries=random_access_points,
            flawed=self.tolerates_errors,
        )

    def frames(self) -> Generator[Planes, None, None]:
        """Decode all packets and compare each frame with that of the source.

        They are decoded once. Where they do not give the frames of the source, they are decoded again with errors
        ignored, as the source was.

        Yields:
            One frame, as many times as the source has frames.

        Raises:
            VideoError: they do not give the frames of the source.
        """
        height, width = self.source.height, self.source.width
        chain = Filters(self.source.path, plane_filters(self.form, height, width))
        done = 0
        for tolerates_errors in (False, True):
            self.tolerates_errors = tolerates_errors
            try:
                with contextlib.closing(self._compared()) as frames:
                    for frame in itertools.islice(frames, done, None):
                        done += 1
                        yield to_planes(chain.frame(frame), self.form, height, width)
                return
            except ContainerError as error:
                if tolerates_errors:
                    raise VideoError(
                        f"{self.source.path}: its {self.codec} packets decode to other frames in Matroska than in its "
                        f"own file ({error}); {_REMEDY}"
                    ) from None

    def _compared(self) -> Generator[av.VideoFrame, None, None]:
        """All frames, each the same as the source's.

        A key frame may start an open GOP or an intra refresh, so each candidate for random access is verified: a second
        decoder starts there and takes over if it gives the source's frames up to the next candidate. Readers start a
        new decoder at each random access point, too, so they repeat exactly what was verified.

        Raises:
            ContainerError: a frame is another, or there are more or fewer.
        """
        count = self.source.frame_count
        candidates = [] if self.preroll_frames or self.tolerates_errors else self._candidates()
        self.random_access_points = candidates[:1]
        bounds = [*(frame for frame, _ in candidates[1:]), count]
        decoder = self._decoded(0)
        try:
            yield from self._same(decoder, 0, bounds[0])
            for (first, begin), end in zip(candidates[1:], bounds[1:], strict=True):
                trial, agreed = self._decoded(begin), 0
                try:
                    for frame in self._same(trial, first, end):
                        yield frame
                        agreed += 1
                    decoder, trial = trial, decoder
                    self.random_access_points.append((first, begin))
                except ContainerError:
                    yield from itertools.islice(self._same(decoder, first, end), agreed, None)
                finally:
                    trial.close()
            if next(decoder, None) is not None:
                raise ContainerError(f"they give more than the {count} frames of the source")
        finally:
            decoder.close()

    def _same(self, decoder: Iterator[av.VideoFrame], first: int, end: int) -> Iterator[av.VideoFrame]:
        """The next frames of a decoder, which have to be those of the source from ``first`` to ``end``."""
        upright, samples = Filters(self.source.path), Samples()
        count = self.source.frame_count
        for number in range(first, end):
            if (frame := next(decoder, None)) is None:
                raise ContainerError(f"they give {number} frames, and the source {count}")
            if checksum(samples.of(upright.frame(frame))) != self.source.checksums[number]:
                raise ContainerError(f"frame {number} is another, and the source has {count}")
            yield frame

    def _decoded(self, begin: int) -> Generator[av.VideoFrame, None, None]:
        """Frames decoded from a cluster on, or from the beginning without those that are preroll_frames."""
        size = self.source.width, self.source.height
        with contextlib.closing(decoded(self._pieces(begin), size, self.tolerates_errors)) as frames:
            yield from itertools.islice(frames, 0 if begin else self.preroll_frames, None)

    def _pieces(self, begin: int) -> Iterator[bytes]:
        """The file, without what lies between its head and a cluster."""
        with wrap_os_error(f"{self.file}: cannot be read", VideoError), open(self.file, "rb") as file:
            if begin:
                yield file.read(self.random_access_points[0][1])
                file.seek(begin)
            while piece := file.read(_PIECE):
                yield piece

    def _candidates(self) -> list[tuple[int, int]]:
        """(frame, byte) of key frames that begin a cluster, the first among them, some seconds apart."""
        with decoder.opened(self.file) as container:
            packets = [(p.pts or 0, p.pos or 0, p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]
        order = sorted(pts for pts, *_ in packets)
        points: list[tuple[int, int]] = []
        times, stop = self.source.times_s, 0
        with open(self.file, "rb") as file:
            for pts, begin, size, is_key in packets:
                frame = bisect.bisect_left(order, pts) if points else 0
                if not points or (is_key and frame < len(times) and times[frame] - times[points[-1][0]] >= _APART_S):
                    file.seek(stop)
                    head = file.read(begin - stop).rfind(_CLUSTER)  # between the packet before and this one
                    if head >= 0:
                        points.append((frame, stop + head))
                stop = begin + size - 8  # some packets get a head of 8 bytes where they are read
        return points


def _copy(packets: Iterator[av.Packet], stream: VideoStream, file: Path) -> int:
    """Write the packets of a stream into a Matroska file, and return how many of them no player shows.

    Raises:
        av.FFmpegError: Matroska does not take them.
    """
    target, copy = _opened(file, stream)
    shown, preroll_frames, start, shows = 0, 0, stream.start_time or 0, 0
    hidden: list[av.Packet] = []
    earliest: int | None = None
    with target:
        for number, packet in enumerate(_readable(packets)):
            packet.pts, packet.dts = (None if t is None else t - start for t in (packet.pts, packet.dts))
            if packet.pts is packet.dts is None and not stream.codec_context.has_b_frames:  # of a raw stream
                packet.pts = packet.dts = shows
                shows += packet.duration or 1
            if packet.dts is not None:
                if earliest is not None and packet.dts < earliest:  # the times of decoding may not step back
                    packet.dts = earliest
                    packet.pts = None if packet.pts is None else max(packet.pts, earliest)
                earliest = packet.dts + (target.format.name == "tee")
            packet.stream = copy
            hidden.append(packet)
            if not packet.is_discard:  # what is hidden behind the last that is shown is left out
                target.mux(hidden)
                shown, preroll_frames, hidden = shown + 1, number - shown, []
    if (aspect := stream.sample_aspect_ratio or Fraction(1)) != 1:
        matroska.set_aspect(file, stream.codec_context.width, stream.codec_context.height, aspect, in_pixels=False)
    return preroll_frames


def _opened(file: Path, stream: VideoStream) -> tuple[OutputContainer, VideoStream]:
    """A Matroska file for the packets of a stream, whose head is written, and its stream there.

    PyAV refuses codecs that Matroska itself has no name for, though FFmpeg stores them as in an AVI file; it does not
    where FFmpeg's ``tee`` writes the file. Some codecs need the four characters that name them in the source, others
    are refused with them.

    Raises:
        av.FFmpegError: Matroska does not take such a stream.
    """
    options = ":".join(f"{name}={value}" for name, value in _MATROSKA.items())
    escaped = re.sub(r"([\\'|])", r"\\\1", str(file))
    aspect = stream.sample_aspect_ratio or Fraction(1)
    refusal: ValueError | av.FFmpegError | None = None
    for (name, form), tag in itertools.product(
        ((f"file:{file}", "matroska"), (f"[f=matroska:{options}]file:{escaped}", "tee")),
        (stream.codec_context.codec_tag, "\0\0\0\0"),
    ):
        target = av.open(name, "w", format=form, container_options=_MATROSKA if form == "matroska" else {})
        try:
            copy = target.add_stream_from_template(stream, opaque=True)
            copy.codec_context.codec_tag, copy.disposition = tag, Disposition.default
            copy.sample_aspect_ratio = copy.codec_context.sample_aspect_ratio = aspect
            if decoder.has_alpha(stream):  # without it players ignore the second picture
                copy.metadata["alpha_mode"] = "1"
            if aspect != 1:
                copy.metadata.update(matroska.ASPECT_PLACEHOLDER)
            target.start_encoding()
            return target, copy
        except (ValueError, av.FFmpegError) as error:
            refusal = error
            target.close()
    assert refusal is not None
    raise refusal


def _readable(packets: Iterator[av.Packet]) -> Generator[av.Packet, None, None]:
    """Packets as far as a file goes: one that breaks off is read up to there."""
    with contextlib.suppress(av.FFmpegError):
        yield from packets


def require_packets(source: VideoInfo) -> None:
    """Refuse what has no packets.

    Raises:
        VideoError: it is a folder of images.
    """
    if source.images:
        raise VideoError(f"{source.path}: is a folder of images, which has no stream to copy; {_REMEDY}")
