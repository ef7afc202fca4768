# SPDX-License-Identifier: MIT
"""Sources, the container of each, and whether that is up to date. Torch-free."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nervcodec.base.streams import check_whole
from nervcodec.errors import (
    ConfigError,
    ContainerError,
    NothingFoundError,
    OutdatedContainerError,
    TooNewError,
    VideoError,
    wrap_os_error,
)
from nervcodec.formats.container import Container, is_container
from nervcodec.formats.text import count_noun, is_system_folder, sanitize_name
from nervcodec.media.probe import images_in, modified, numbered_images, require_file, source_digest
from nervcodec.outputs import VIDEO_SUFFIXES, beside, container_of_frames, require_folder

_FEWEST_FRAMES = 2  # of a folder below another: a single picture is a cover or a still


@dataclass(frozen=True)
class Job:
    """One source and its container.

    Attributes:
        source: a video file, or a folder of numbered frames.
        target: the container, whose folder need not be there yet.
    """

    source: Path
    target: Path


@dataclass(frozen=True)
class Sources:
    """All sources.

    Attributes:
        jobs: in the order in which they were named, those below a folder sorted.
        notes: a line for each thing that was left out and may have been meant.
    """

    jobs: tuple[Job, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Search:
    """State of a search.

    Attributes:
        out: folder of the containers, or None.
        sources: by inode: the path, and the folder of its container below ``out``.
        notes: see :class:`Sources`.
        system_folders: names of those that were skipped.
    """

    out: Path | None
    sources: dict[tuple[int, int] | Path, tuple[Path, Path]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    system_folders: list[str] = field(default_factory=list)

    def add(self, source: Path, folder: Path = Path()) -> None:
        """A source, which counts once under the first name that it has."""
        first, _ = self.sources.setdefault(_inode(source) or source, (source, folder))
        if first != source and source.is_symlink():
            self.notes.append(f"left out: {source}: is a link to {first}")

    def looks_into(self, folder: str, name: str) -> bool:
        """Whether sources may lie in a folder below another."""
        if is_system_folder(name):
            self.system_folders.append(name)
        return not (name.startswith(".") or is_system_folder(name) or self._is_output(os.path.join(folder, name)))

    def _is_output(self, folder: str) -> bool:
        """Whether a folder is the one that containers go to."""
        return self.out is not None and _inode(Path(folder)) == _inode(self.out) is not None


def find(inputs: Sequence[str | os.PathLike[str]], out: Path | None = None, recursive: bool = False) -> Sources:
    """The sources that inputs stand for, and a container for each.

    A video ``a/b.mp4`` below a folder goes to ``a/b.nerv`` below ``out``, a video that is named itself to its name with
    ``.nerv``. Where two would go to the same, they keep their endings: ``b.mp4.nerv``, ``b.mkv.nerv``. A file that is
    reached twice (links of either kind, spellings) counts once. Below a folder, files and folders that are hidden,
    links to folders, folders of recycle bins and the like (a note counts them), and ``out`` are left out; a folder of
    numbered frames in which there is no video is one source.

    Args:
        inputs: video files, folders of numbered frames, and where ``recursive`` folders that hold such.
        out: folder of the containers; None puts each beside its source.
        recursive: look below folders.

    Raises:
        VideoError: an input is not there, or is a pipe or a device.
        NothingFoundError: nothing to encode.
        ConfigError: a folder of videos without ``recursive``, two sources with one container, or a container that is
            one of the sources.
    """
    if out is not None:
        require_folder(out)
    search = _Search(out)
    for path in map(Path, inputs):
        require_file(path)
        if recursive and path.is_dir():
            before = len(search.sources)
            _add_below(path, search)
            if len(search.sources) == before:
                search.notes.append(f"{path}: nothing to encode below it that was not found before")
        else:
            require_source(path)
            search.add(path)
    if count := len(search.system_folders):
        names = ", ".join(sorted(set(search.system_folders)))
        search.notes.append(f"left out: {count_noun(count, 'folder')} of the system, a NAS or a recycle bin ({names})")
    if not search.sources:
        raise NothingFoundError(f"{', '.join(map(str, inputs))}: no video and no folder of numbered frames below")
    jobs = _with_targets(list(search.sources.values()), out)
    for job in jobs:
        if (number := _inode(job.target)) in search.sources and number is not None:
            raise ConfigError(f"{job.target}: is an input itself and would be written over, made of {job.source}")
    return Sources(jobs, tuple(search.notes))


def require_source(path: Path) -> None:
    """Refuse a folder that holds no frames but videos, which are encoded only with ``--recursive``.

    Raises:
        ConfigError: it is one.
        VideoError: it is a folder that cannot be read.
    """
    with wrap_os_error(f"{path}: cannot be read", VideoError):
        without_frames = path.is_dir() and not _numbered(images_in(path))
    if without_frames and any(True for _ in _walk(path, _Search(None))):
        raise ConfigError(f"{path}: is a folder of videos; --recursive encodes all that are below it")


def _add_below(top: Path, search: _Search) -> None:
    """All sources of a tree, sorted, those that are links after those that are not."""
    for source in sorted(_walk(top, search), key=lambda path: (os.path.islink(path), path)):
        search.add(source, Path() if source == top else source.parent.relative_to(top))


def _walk(top: Path, search: _Search) -> Iterator[Path]:
    """Sources in a folder and in those below it; a folder that cannot be read counts, to be reported as it fails."""
    unread: list[Path] = []
    for folder, folders, names in os.walk(top, onerror=lambda error: unread.append(Path(error.filename))):
        folders[:] = [name for name in folders if search.looks_into(folder, name)]
        files = [Path(folder, name) for name in names if not name.startswith(".")]
        videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES and _is_file(path, search.notes)]
        yield from videos
        if not videos and _holds_frames(Path(folder), search.notes):
            yield Path(folder)
    yield from unread


def _is_file(path: Path, notes: list[str]) -> bool:
    """Whether a path is a file, or one that must not be looked at, to be reported as it fails; a note tells of links
    that lead nowhere.
    """
    try:
        is_file = path.is_file()
        if not is_file and path.is_symlink() and not path.exists():
            notes.append(f"left out: {path}: is a link that leads nowhere")
        return is_file
    except PermissionError:
        return True


def _holds_frames(folder: Path, notes: list[str]) -> bool:
    """Whether a folder below another is one of numbered frames; a note says why one that nearly is does not count."""
    try:
        images = images_in(folder)
        if len(images) < _FEWEST_FRAMES or not _numbered(images):
            return False
        if (container := container_of_frames(folder)) is not None:
            notes.append(f"left out: {folder}: frames decoded from {container}")
            return False
        numbered_images(folder)
    except (VideoError, OSError) as error:
        notes.append(f"left out: {error}")
        return False
    return True


def _numbered(images: Sequence[Path]) -> bool:
    """Whether there are images, and a number in the name of each."""
    return bool(images) and all(any(c.isdigit() for c in image.stem) for image in images)


def _with_targets(sources: Sequence[tuple[Path, Path]], out: Path | None) -> tuple[Job, ...]:
    """A container for each source.

    Args:
        sources: each, and where below ``out`` the container of each goes.
        out: folder of all containers, or None.

    Raises:
        ConfigError: two have the same, their endings kept.
    """
    endings_kept: set[int] = set()
    while True:
        targets = []
        for number, (source, folder) in enumerate(sources):
            target = beside(source, number in endings_kept)
            targets.append(target if out is None else out / folder / target.name)
        count = Counter(targets)
        clashing = {number for number, target in enumerate(targets) if count[target] > 1}
        if clashing <= endings_kept:
            break
        endings_kept |= clashing
    if clashing:
        one, other = [sources[number][0] for number in sorted(clashing) if targets[number] == targets[min(clashing)]][
            :2
        ]
        raise ConfigError(f"{one} and {other} would both become {targets[min(clashing)]}; encode them one by one")
    return tuple(Job(source, target) for (source, _), target in zip(sources, targets, strict=True))


def _inode(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file or folder; None where it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_up_to_date(job: Job, note: Callable[[str], None]) -> bool:
    """Whether a job's container is whole, of its source, and of an encode that was not stopped.

    A container that records the digest of its source is compared with that; one that does not must not be older than
    its source.

    Args:
        job: the source and its container.
        note: told why an existing container is encoded again.

    Raises:
        ConfigError: an existing file is kept: it is no container, of a source with another name, or of an earlier or
            later nervcodec.
        OSError: source or container cannot be read.
    """
    source, target = job.source, job.target
    changed = modified(source)
    if not target.is_file():
        return False
    if not is_container(target):
        raise ConfigError(f"{target}: not a .nerv file; --force replaces it")
    try:
        with Container.open(target) as opened:
            video, fit = opened.header.video, opened.header.fit
            if video.source_name != sanitize_name(source.resolve().name):
                raise ConfigError(
                    f"{target}: exists and was made of another source, {video.source_name}; --force overwrites it"
                )
            if video.source_digest is None and target.stat().st_mtime < changed:
                note(f"{target}: is older than its source and is encoded again")
                return False
            if video.source_digest is not None and video.source_digest != source_digest(source):
                note(f"{target}: was made of another {source.name} and is encoded again")
                return False
            if not fit.complete:
                note(f"{target}: its encode was stopped; it is resumed or started again")
                return False
            check_whole(opened, weights=False)
    except TooNewError as error:
        raise ConfigError(f"{error}, or overwrite it with --force") from None
    except OutdatedContainerError as error:
        raise ConfigError(f"{error}; --force replaces it") from None
    except ContainerError as error:
        note(f"{error}; it is encoded again")
        return False
    return True
