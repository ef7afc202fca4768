# SPDX-License-Identifier: MIT
"""Decoding of ``.nerv`` files: container -> networks -> frames and embeddings. Does not import training or encoders.

``import nervcodec.decoding`` imports no torch, and frames of a base layer need none. ``rendering`` imports torch when a
network is first used; ``NervVideo.search`` imports search and a text encoder.
"""

from nervcodec.decoding.video import NervVideo

__all__ = ["NervVideo"]
