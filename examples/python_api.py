# SPDX-License-Identifier: MIT
"""The Python API in one page. Usage: python examples/python_api.py VIDEO OUT.nerv"""

from __future__ import annotations

import sys
from pathlib import Path

import nervcodec


def main(video: Path, container: Path) -> None:
    # Fit a network to two seconds of the video; every option of `nervcodec encode` has a name here.
    report = nervcodec.encode(
        video, container, time_s=10, start_s=0, duration_s=2, scale=0.5, encoder="offline", force=True
    )
    print(f"{report.size_bytes:,} bytes, {report.psnr_db:.2f} dB, {report.fit_s:.0f} s of fitting")

    # An open container is a sequence of frames, decoded when asked for: uint8 RGB arrays of shape (H, W, 3).
    frames = nervcodec.open(container)
    print(len(frames), "frames of", frames[0].shape, "at", float(frames.frame_rate), "a second")
    print("the last frame:", frames[-1].shape)
    print("every tenth frame:", frames[::10].shape)
    print("two frames by number:", frames[[0, -1]].shape)
    print("the frame on show at 0.5 s:", frames.frame_at(0.5).shape)
    print("patch in row 1, column 2 of frame 7, alone:", frames.patch(7, 1, 2).shape)

    # A copy opens the file again, so that the workers of a torch DataLoader can have one each; `with` closes it.
    with nervcodec.open(container) as other:
        print(other)

    # Search asks the second head; no pixel is decoded.
    for moment in frames.search("a car", k=3):
        print(
            f"{moment.score:.3f}  {moment.start_s:.2f} - {moment.end_s:.2f} s, patch {moment.patch}, box {moment.box}"
        )

    # What the file says about itself.
    print(frames.header.video.source_name, frames.header.fit.psnr_db, "dB")

    # Compare with the original.
    print(nervcodec.evaluate(container, video).to_json())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
