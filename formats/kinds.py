# SPDX-License-Identifier: MIT
"""Kinds of base layer, as headers name them. Standard library only."""

AV1 = "av1"  # a stream of its own for each segment, which begins with a key frame
COPY = "copy"  # the source's own packets, in one stream for the whole video
MAX_CRF = 70  # the worst quality that SVT-AV1 knows
