# SPDX-License-Identifier: MIT
"""The containers that are served: which there are, what their headers say, and which file a path of an address is."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nervcodec.decoding.kept import KeptVideo, Room
from nervcodec.errors import ConfigError, ContainerError, NervError
from nervcodec.formats.container import Container
from nervcodec.formats.header import AUDIO, Header
from nervcodec.formats.text import SUFFIX, is_system_folder, shown
from nervcodec.search.collection import containers_below
from nervcodec.serve import limits
from nervcodec.serve.limits import MissingError

_LONGEST = 4_096  # bytes of a path


@dataclass(frozen=True)
class Item:
    """A file as it is now; one that was changed is another.

    Attributes:
        path: within the folder, with slashes.
        file: where it is.
        size: bytes.
        modified_ns: when it was changed.
        number: of its place on the disk.
    """

    path: str
    file: Path
    size: int
    modified_ns: int
    number: int

    @property
    def version(self) -> str:
        """The same for the same contents, as far as the system says."""
        return f"{self.size:x}-{self.modified_ns:x}-{self.number:x}"

    @property
    def name(self) -> str:
        """Without folders."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Said:
    """What a file says of itself.

    Attributes:
        header: None where it is damaged.
        damaged: what is wrong with it, or None.
    """

    header: Header | None
    damaged: str | None = None


class Shelf:
    """The containers below a folder, or a single one. Several threads may ask.

    Args:
        place: a folder or a container.

    Raises:
        ConfigError: it is neither.

    Attributes:
        folder: that holds them.
        single: the path of the only one, or None.
        name: of what is served.
    """

    def __init__(self, place: Path):
        if not place.is_dir() and place.suffix != SUFFIX:
            raise ConfigError(f"{place}: is neither a folder nor a {SUFFIX} file")
        self.single = None if place.is_dir() else place.name
        self.folder = place if self.single is None else place.parent
        self.name = self.single or place.resolve().name or str(place)
        self._root = os.path.realpath(self.folder)
        self._lock = threading.Lock()
        self._said: dict[str, tuple[str, Said]] = {}
        self._room = Room(limits.frames_bytes())
        self._open: OrderedDict[str, tuple[str, KeptVideo]] = OrderedDict()

    def items(self) -> list[Item]:
        """All that there are, the newest first. A link that leads out of the folder is none."""
        if self.single is not None:
            return [self.item(self.single)]
        found = []
        for path, facts in containers_below(self.folder).items():
            file = self.folder / path
            if not os.path.islink(file) or self._within(file):
                found.append(_item(path, file, facts))
        with self._lock:
            there = {item.path for item in found}
            self._said = {path: said for path, said in self._said.items() if path in there}
        return sorted(found, key=lambda item: (-item.modified_ns, item.path))

    def item(self, path: str) -> Item:
        """The file of a path in an address.

        Raises:
            MissingError: there is none, or it is not to be served.
        """
        missing = MissingError(f"there is no {shown(path[:100])}")
        parts = path.split("/")
        odd = any(not part or part.startswith(".") or is_system_folder(part) for part in parts)
        if odd or "\0" in path or os.sep != "/" and os.sep in path or not path.endswith(SUFFIX):
            raise missing
        if len(os.fsencode(path)) > _LONGEST or self.single not in (None, path):
            raise missing
        file = self.folder.joinpath(*parts)
        try:
            facts = file.stat()
        except (OSError, ValueError):
            raise missing from None
        if not stat.S_ISREG(facts.st_mode) or not (self.single or self._within(file)):
            raise missing
        return _item(path, file, facts)

    def _within(self, file: Path) -> bool:
        return os.path.realpath(file).startswith(os.path.join(self._root, ""))

    def said(self, item: Item) -> Said:
        """What a file says of itself; it is read when it is first asked or was changed."""
        with self._lock:
            version, said = self._said.get(item.path, ("", None))
        if said is None or version != item.version:
            said = _read(item)
            with self._lock:
                self._said[item.path] = item.version, said
        return said

    def note_damage(self, item: Item, error: ContainerError) -> None:
        """Remember what was found wrong with a file whose header is whole."""
        header = self.said(item).header
        with self._lock:
            self._said[item.path] = item.version, Said(header, _reason(item, error))

    def open(self, item: Item) -> KeptVideo:
        """The open container; the last few that were asked for stay open.

        Raises:
            ContainerError: it is damaged, or its frames are too large to be decoded here.
        """
        with self._lock:
            version, video = self._open.get(item.path, ("", None))
            if video is None or version != item.version:
                video = KeptVideo.at(item.file)
                facts = video.header.video
                if facts.width * facts.height > limits.MOST_PIXELS:
                    raise ContainerError(f"{item.file}: frames of {facts.width} x {facts.height} are too large to show")
                video.keep(self._room)
                self._open[item.path] = item.version, video
            self._open.move_to_end(item.path)
            while len(self._open) > limits.OPEN_FILES:
                self._open.popitem(last=False)  # closes itself when nobody uses it any more
        return video

    def opened(self, item: Item) -> KeptVideo | None:
        """The container where it is open already."""
        with self._lock:
            version, video = self._open.get(item.path, ("", None))
            return video if version == item.version else None

    def brief(self, text: str) -> str:
        """A message without the place of the folder, which is nobody's business."""
        return text.replace(os.path.join(str(self.folder), ""), "")

    def rest(self, idle_s: float) -> bool:
        """End decoders that nobody has used for so long, and let go of frames; returns whether there were some."""
        before = self._room.used_bytes
        self._room.forget(idle_s)
        with self._lock:
            videos = [video for _, video in self._open.values()]
        for video in videos:
            video.rest(idle_s)
        return self._room.used_bytes < before

    def close(self) -> None:
        """Let go of all files."""
        with self._lock:
            while self._open:
                self._open.popitem()[1][1].close()

    def facts(self, item: Item) -> dict:
        """What the list of files says of one."""
        said = self.said(item)
        facts: dict = {
            "path": item.path,
            "name": item.name,
            "size_bytes": item.size,
            "modified": item.modified_ns / 1e9,
            **dict.fromkeys(_KEYS),
            "has_sound": False,
            "searchable": False,
            "damaged": said.damaged,
        }
        if said.header is not None:
            facts |= _facts(said.header)
        return facts


_KEYS = ("duration_s", "width", "height", "frame_rate", "frame_count", "pixel_aspect", "psnr_db")


def _facts(header: Header) -> dict:
    video = header.video
    values: Sequence[float] = (
        video.duration_s,
        video.width,
        video.height,
        video.fps,
        video.frame_count,
        video.sample_aspect_ratio[0] / video.sample_aspect_ratio[1],
        header.fit.psnr_db,
    )
    more = {"has_sound": AUDIO in header.tensors, "searchable": header.semantic is not None}
    return dict(zip(_KEYS, values, strict=True)) | more


def _item(path: str, file: Path, facts: os.stat_result) -> Item:
    return Item(path if _is_text(path) else shown(path), file, facts.st_size, facts.st_mtime_ns, facts.st_ino)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(item: Item) -> Said:
    if not _is_text(str(item.file)):
        return Said(None, "its name is no text in UTF-8; rename it")
    try:
        with Container.at(item.file) as opened:
            return Said(opened.header)
    except NervError as error:
        return Said(None, _reason(item, error))


def _reason(item: Item, error: NervError) -> str:
    return str(error).removeprefix(f"{item.file}: ")
