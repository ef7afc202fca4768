# SPDX-License-Identifier: MIT
"""Overfitting a network to one segment: losses, schedules, optimisers and the loop."""
