# SPDX-License-Identifier: MIT
"""Whose a parameter is: shared by all segments of a video, or one segment's own.

What a ``grid`` network knows of *how* a video looks (its decoder, the basis of its embeddings) may serve every
segment; what it knows of *when and where* (feature grids, codes) is the segment's own. The original method's network
keeps a whole segment in its decoder, so that all of it is the segment's own.
"""

from __future__ import annotations

from nervcodec.network.config import NetworkConfig, PatchConfig

_OWN = ("grids.", "semantic.codes", "semantic.grid")


def is_own(config: NetworkConfig, name: str) -> bool:
    """Whether a parameter belongs to one segment alone.

    Args:
        config: of the network.
        name: of the parameter.
    """
    return isinstance(config, PatchConfig) or name.startswith(_OWN)
