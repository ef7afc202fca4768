# SPDX-License-Identifier: MIT
"""Frames in, with PyAV, and frames out, through the ffmpeg binary that imageio-ffmpeg ships."""
