# SPDX-License-Identifier: MIT
"""Frames in and frames out, through the ffmpeg binary that imageio-ffmpeg ships."""
