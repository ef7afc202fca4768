# SPDX-License-Identifier: MIT
"""The embeddings of an open container, of which no pixel is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from nervcodec.coordinates import position
from nervcodec.decoding.file import OpenFile
from nervcodec.errors import ContainerError
from nervcodec.formats.header import SemanticFacts
from nervcodec.network.stored import EmbeddingParts


class EmbeddedFile(OpenFile):
    """An open container that may have embeddings."""

    def embedded_frames(self, segment: int) -> tuple[int, ...]:
        """Frames of a segment, counted from its first, whose embeddings were fitted."""
        chosen = self.header.segments[position(segment, len(self.header.segments), "segment")]
        return self._networks.contents().embedded_frames(chosen)

    def require_embeddings(self) -> SemanticFacts:
        """What the header says of the embeddings.

        Raises:
            ContainerError: the container has none.
        """
        if self.header.semantic is None:
            raise ContainerError(f"{self.path}: has no embeddings (it was encoded with --encoder none)")
        return self.header.semantic

    def embeddings(self, numbers: Iterable[int] | None = None) -> np.ndarray:
        """Patch embeddings, without decoding a pixel.

        Args:
            numbers: frame numbers in any order; None for all.

        Returns:
            ``(n, rows * columns, D)`` float32 unit vectors.

        Raises:
            ContainerError: the container has none.
        """
        dimension = self.require_embeddings().dimension
        none = np.empty((0, self.grid.rows * self.grid.columns, dimension), np.float32)
        chosen = self._chosen(numbers)
        from nervcodec.decoding.embeddings import embeddings

        return np.concatenate([none, *embeddings(self._networks, chosen, self._starts)])

    def embedding_parts(self) -> Iterator[EmbeddingParts]:
        """Embeddings of all frames, segment by segment, before they are put together.

        Raises:
            ContainerError: the container has none.
        """
        self.require_embeddings()
        from nervcodec.decoding.embeddings import parts

        return parts(self._networks)
