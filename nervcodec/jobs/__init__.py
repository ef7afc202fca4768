# SPDX-License-Identifier: MIT
"""Many sources: which there are, what of them is done already, and how they are encoded."""
