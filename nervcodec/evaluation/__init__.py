# SPDX-License-Identifier: MIT
"""Judging a container: against its source, against other codecs, in tables, curves and on a page."""
