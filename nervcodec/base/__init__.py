# SPDX-License-Identifier: MIT
"""The base layer: a segment's frames as one closed AV1 stream, coded and decoded by ffmpeg."""
