# SPDX-License-Identifier: MIT
"""The dual-head network: coordinates in, pixels and embeddings out. It never sees a file."""
