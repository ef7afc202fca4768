# SPDX-License-Identifier: MIT
"""Video in, ``.nerv`` out: :mod:`nervcodec.encoding.pipeline` lists the tasks of an encode.

The task of a segment is plain data and its fit a pure function of it, so that segments may be fitted anywhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from nervcodec import options
from nervcodec.encoding.assemble import EncodeReport
from nervcodec.encoding.pipeline import EncodeJob, TaskRunner, run_here
from nervcodec.encoding.segment import EncodedSegment, SegmentTask, fit_segment
from nervcodec.events import Observer
from nervcodec.media.probe import require_file
from nervcodec.outputs import UnchangedOutput, beside, locked, require_container, require_folder
from nervcodec.training.hooks import require_tensorboard

__all__ = ["EncodeReport", "EncodedSegment", "SegmentTask", "encode", "fit_segment"]


def encode(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    observer: Observer | None = None,
    force: bool = False,
    **settings: object,
) -> EncodeReport:
    """Fit a network to a video and write it to a container.

    Args:
        path: a video file, or a folder of numbered PNG or JPEG frames.
        out: the container; by default the source's name with ``.nerv``.
        observer: told of progress; may ask to stop early, which keeps the best state so far.
        force: overwrite an existing output.
        **settings: fields of :class:`nervcodec.options.EncodeOptions` and its parts by name, such as ``time_s=180``,
            ``encoder="none"``, ``crop=(640, 1280)``, and ``preset``.

    Raises:
        ConfigError: a setting is out of range, or the output exists or is being written by another process.
        VideoError: the source cannot be read.
        EncoderError: the semantic encoder cannot be loaded.
        DivergedError: the fit produced values that are not finite.
        ContainerError: the output cannot be written.
    """
    checked, observer = options.from_flat(**settings), observer or Observer()
    source = Path(path)
    require_file(source)
    target = Path(out) if out is not None else beside(source)
    require_container(target, force, source)
    if checked.log_dir is not None:
        require_folder(Path(checked.log_dir))
        require_tensorboard()
    with locked(target):
        job = EncodeJob(source, target, checked, observer, UnchangedOutput(target, force))
        return run_here(job, TaskRunner(observer), observer.stop_requested)
