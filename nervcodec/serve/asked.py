# SPDX-License-Identifier: MIT
"""What stands in an address after the question mark."""

from __future__ import annotations

from starlette.requests import Request

from nervcodec.serve import limits
from nervcodec.serve.answers import Like, Question


def only(request: Request, name: str, default: str) -> str:
    """A value that may stand once.

    Raises:
        RefusedError: it stands several times.
    """
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise limits.RefusedError(f"{name} stands {len(values)} times")
    return values[0] if values else default


def question_of(request: Request) -> Question:
    """What is looked for.

    Raises:
        RefusedError: nothing, or too much.
    """
    given = request.query_params
    add, subtract, like = given.getlist("add"), given.getlist("subtract"), only(request, "like", "")
    if len(add) + len(subtract) > limits.MOST_TERMS:
        raise limits.RefusedError(f"a query has at most {limits.MOST_TERMS} texts")
    if not add and not like:
        raise limits.RefusedError("the query is empty")
    texts = tuple(map(limits.words, add)), tuple(map(limits.words, subtract))
    return Question(*texts, _like(like) if like else None)


def _like(text: str) -> Like:
    parts = text.rsplit(":", 3)
    if len(parts) != 4:
        raise limits.RefusedError("like is PATH:FRAME:ROW:COLUMN")
    numbers = (
        limits.number_of(what, part) for what, part in zip(("a frame", "a row", "a column"), parts[1:], strict=True)
    )
    return Like(parts[0], *numbers)
