# SPDX-License-Identifier: MIT
"""Choice of device and precision, and process settings that make torch fast on a CPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nervcodec import threads
from nervcodec.errors import ConfigError
from nervcodec.settings import Setting

DEVICE = Setting(
    "auto", "Device of networks; auto selects a GPU if there is one.", "Run", choices=("auto", "cuda", "cpu")
)
PRECISION = Setting(
    "auto", "Precision of networks; auto selects bf16 if the hardware supports it natively.", "Run",
    choices=("auto", "fp32", "bf16"),
)  # fmt: skip
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # glibc's mallopt(3)


def tune_allocator(arenas: int | None = None) -> None:
    """Let the C library keep freed memory and torch use huge pages; a no-op without glibc.

    A fit allocates and frees the same tens of megabytes at every step. By default glibc hands each such block back
    to the kernel and takes page faults to get it again; keeping it, in huge pages, made a step 1.2 to 1.6 times as
    fast on two cores. Takes effect for torch only when called before its first large allocation.

    Args:
        arenas: number of malloc arenas for the threads; None for glibc's default.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has no mallopt and does not need it
        return
    for option, value in ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20)):
        mallopt(option, value)
    if arenas is not None:
        mallopt(_M_ARENA_MAX, arenas)


def trim_memory() -> None:
    """Return free memory that :func:`tune_allocator` keeps to the kernel; a no-op without glibc."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def set_threads(count: int) -> None:
    """Set the number of threads of torch, and of each encoder and decoder, of this process."""
    tune_allocator()
    threads.codec_threads = count
    import torch

    torch.set_num_threads(count)


def physical_memory() -> int | None:
    """Bytes of memory in this machine; None if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX
        return None


def available_memory(device: str) -> int | None:
    """Bytes that this process can still allocate; None where the system does not say.

    On a CPU, what the kernel estimates to be available, and what the limits of this process's control groups leave.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    limits = list(_left_by_control_groups())
    with contextlib.suppress(OSError, KeyError, ValueError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        limits.append(1024 * int(lines["MemAvailable"].split()[0]))
    return min(limits, default=None)


def _left_by_control_groups() -> Iterator[int]:
    """What each limit above this process leaves; of a file cache that can be dropped, none counts as used."""
    top = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError):
        own = [line.rpartition("::")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if "0::" in line]
        for group in [top / own[0].lstrip("/"), *(top / own[0].lstrip("/")).parents] if own else []:
            if not group.is_relative_to(top):
                return
            with contextlib.suppress(OSError, KeyError, ValueError):  # the first group has no limit
                used = int((group / "memory.current").read_text())
                parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield int((group / "memory.max").read_text()) - used + int(parts["inactive_file"])


@dataclass(frozen=True)
class Hardware:
    """Device and precision of a network.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``bf16``; bf16 keeps weights in float32 and computes in bfloat16.
    """

    device: str
    precision: str

    def autocast(self) -> contextlib.AbstractContextManager:
        """Context of the network's forward pass."""
        import torch

        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)


def choose(device: str = "auto", precision: str = "auto", arenas: int | None = None) -> Hardware:
    """Resolve ``auto``: a GPU where torch finds one, and bfloat16 where the hardware supports it natively.

    Args:
        device, precision: as :data:`DEVICE` and :data:`PRECISION` take them.
        arenas: as :func:`tune_allocator` takes it.

    Raises:
        ConfigError: an unknown name, or CUDA is requested and torch finds none.
    """
    device, precision = DEVICE.validated("device", device), PRECISION.validated("precision", precision)
    tune_allocator(arenas)
    if device != "cpu":
        import torch

        has_cuda = torch.cuda.is_available()
        if device == "cuda" and not has_cuda:
            raise ConfigError("--device cuda: torch finds no CUDA device; use --device cpu")
        device = "cuda" if has_cuda else "cpu"
    if precision == "auto":
        precision = "bf16" if _has_native_bf16(device) else "fp32"
    return Hardware(device, precision)


def choose_later(device: str = "auto", precision: str = "auto") -> Callable[[], Hardware]:
    """A function that calls :func:`choose` once, on its first call: importing torch takes seconds, and decoding a base
    layer does not need it. The allocator is tuned immediately.

    Raises:
        ConfigError: as :func:`choose`, now.
    """
    if DEVICE.validated("device", device) == "cuda":
        hardware = choose(device, precision)
        return lambda: hardware
    PRECISION.validated("precision", precision)
    tune_allocator()
    return cache(lambda: choose(device, precision))


def _has_native_bf16(device: str) -> bool:
    """Whether bfloat16 is native: on a CPU with AMX or AVX-512 BF16; otherwise it is slower than float32."""
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)
