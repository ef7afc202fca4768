# SPDX-License-Identifier: MIT
"""Kinds of base layer, and of what stands beside one, as headers name them. Standard library only."""

AV1 = "av1"  # a stream of its own for each segment, which begins with a key frame
COPY = "copy"  # the source's own packets, in one stream for the whole video
HEAD_ONLY = "refiner"  # a segment without a network of pixels: earlier versions had one that refined the base layer
MAX_CRF = 70  # the worst quality that SVT-AV1 knows
