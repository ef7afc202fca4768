# SPDX-License-Identifier: MIT
"""Fits a network to one segment: datasets, losses, optimizers, quantization, rate control and the loop."""
