# SPDX-License-Identifier: MIT
"""The ``nervcodec`` command: click and rich live here and nowhere else."""
