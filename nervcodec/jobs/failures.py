# SPDX-License-Identifier: MIT
"""What may go wrong with one source of many, and how it is told."""

from __future__ import annotations

from nervcodec.errors import NervError, is_out_of_memory


def is_of_a_source(error: Exception) -> bool:
    """Whether an error says that a source cannot be encoded, and nothing about the others."""
    return isinstance(error, (NervError, OSError)) or is_out_of_memory(error)


def reason(error: Exception) -> str:
    """Such an error in words."""
    if isinstance(error, NervError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    return "out of memory; try a smaller --scale or --segment"
