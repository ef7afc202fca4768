# SPDX-License-Identifier: MIT
"""The ``.nerv`` container: header, quantisation, reading and writing. Needs numpy and safetensors, never torch."""
