# SPDX-License-Identifier: MIT
"""LanceDB imported in half the time, by commands that do so at once and have the process to themselves."""

from __future__ import annotations

import contextlib
from typing import Any


def import_lancedb() -> None:
    """Import it, if it is installed; whoever needs it says where it is not.

    Of two seconds that this takes, it spends more than half on a client for servers, of which pydantic makes hundreds
    of models and checkers that a folder never needs. They are made when they are first used, or not at all.
    """
    from nervcodec.errors import LibraryError
    from nervcodec.library import tables

    with contextlib.suppress(ImportError, LibraryError):
        import pydantic

        before = pydantic.validate_call, pydantic.BaseModel.model_config
        pydantic.validate_call = _unchecked
        pydantic.BaseModel.model_config = {**before[1], "defer_build": True}
        try:
            tables.package()
        finally:
            pydantic.validate_call, pydantic.BaseModel.model_config = before


def _unchecked(function: Any = None, **_: Any) -> Any:
    """In place of ``pydantic.validate_call``, with or without arguments."""
    return function if function is not None else _unchecked
