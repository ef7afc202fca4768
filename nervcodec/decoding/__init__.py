# SPDX-License-Identifier: MIT
"""A ``.nerv`` file as a sequence of frames and of embeddings. Never imports the fit or an encoder.

container -> pool (networks of many files) -> pixels, embeddings -> the open video.

``import nervcodec.decoding`` needs no torch, nor do the frames of a base layer that no network changes. A network is
built, and ``pixels`` and ``embeddings`` are imported, when one is used.
"""

from nervcodec.decoding.needs import Needs
from nervcodec.decoding.pool import Pool
from nervcodec.decoding.video import OpenVideo
from nervcodec.network.stored import EmbeddingParts

__all__ = ["EmbeddingParts", "Needs", "OpenVideo", "Pool"]
