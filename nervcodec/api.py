# SPDX-License-Identifier: MIT
"""What ``import nervcodec`` offers beside ``encode`` and ``evaluate``: a container opened for decoding and search."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nervcodec.decoding import OpenVideo
from nervcodec.errors import ConfigError

if TYPE_CHECKING:
    from nervcodec.search.moments import Moment
    from nervcodec.semantic.encoder import SemanticEncoder


class NervVideo(OpenVideo):
    """An open video that can be asked.

    >>> video = nervcodec.open("kitchen.nerv")   # doctest: +SKIP
    >>> video.search("sink")[0].start_s          # doctest: +SKIP
    """

    def search(
        self, query: str, k: int = 10, encoder: SemanticEncoder | None = None, cut_off: bool = True
    ) -> list[Moment]:
        """Moments that match a text, best first; none where nothing does.

        Args:
            query: what to look for.
            k: at most so many.
            encoder: the one the container was made with, already loaded; None loads it.
            cut_off: leave out what is not really there (see ``nervcodec.search.ask``).

        Raises:
            ContainerError: the container has no embeddings, or not of this encoder.
            EncoderError: its encoder cannot be loaded here.
            ConfigError: the query is no text or empty, or ``k`` no whole number from 1 on.
        """
        from nervcodec.search.ask import answer
        from nervcodec.search.index import EmbeddingIndex, require_length
        from nervcodec.search.moments import find_moments
        from nervcodec.search.query import Query, Term
        from nervcodec.semantic.encoder import load
        from nervcodec.settings import typed

        if not typed("query", str, query).strip():
            raise ConfigError("the query is empty")
        if typed("k", int, k) < 1:
            raise ConfigError("k must be 1 or more")
        encoder = encoder or load(self.require_embeddings().encoder)
        asked = answer(Query((Term(query),)), encoder, cut_off)
        index = EmbeddingIndex.of(self)
        require_length(index, asked.vector)
        return find_moments([index], lambda _: asked, int(k))

    def write_base(self, path: str | os.PathLike[str], audio: bool = True, force: bool = False) -> int:
        """Write the base layer as a video that plays anywhere, not coded again; returns the number of frames.

        Args:
            path: ends in ``.mp4``, ``.mkv`` or ``.webm``.
            audio: with the sound that the container has, coded anew where the format does not hold it.
            force: overwrite an existing file.

        Raises:
            ContainerError: the container has no base layer, or it is damaged.
            ConfigError: the file exists, or its folder does not.
            VideoError: another ending, or the place cannot be written.
        """
        from nervcodec.base.export import require_base, write_base
        from nervcodec.outputs import require_free

        target, opened = Path(path), self._networks.contents()
        require_base(opened)
        require_free(target, force)
        sound = self.sound() if audio else None
        return write_base(opened, target, sound.fitting(target.suffix) if sound else None)


open_video = NervVideo.at
