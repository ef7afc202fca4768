# SPDX-License-Identifier: MIT
"""A description of the machine, which every result carries, and where results go."""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def describe() -> dict:
    """Processor, cores, memory, accelerator and the versions that matter."""
    import torch

    import nervcodec

    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
        memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
        memory_gb = round(int(memory.split()[1]) / 1e6, 1)
    except (OSError, StopIteration):
        memory_gb = None
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": memory_gb,
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "cpu_bf16": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "cpu_amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nervcodec": nervcodec.__version__,
        "date": date.today().isoformat(),
    }


def save(name: str, rows: list[dict], **more: object) -> Path:
    """Write ``results/NAME.json`` with the machine's description."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": describe(), **more, "rows": rows}, indent=1) + "\n")
    return path


def print_rows(rows: list[dict]) -> None:
    """A table of the rows' keys and values."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for key in rows[0]:
        table.add_column(key)
    for row in rows:
        table.add_row(
            *(f"{v:.4g}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else str(v) for v in row.values())
        )
    Console(width=160).print(table)
