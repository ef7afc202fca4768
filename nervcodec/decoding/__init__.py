# SPDX-License-Identifier: MIT
"""A ``.nerv`` file as a sequence of frames and of embeddings. Never imports the fit or an encoder.

container -> pool (networks of many files) -> pixels, embeddings -> the open video.
"""

from nervcodec.decoding.embeddings import EmbeddingParts
from nervcodec.decoding.pixels import Needs
from nervcodec.decoding.pool import Pool
from nervcodec.decoding.video import OpenVideo

__all__ = ["EmbeddingParts", "Needs", "OpenVideo", "Pool"]
