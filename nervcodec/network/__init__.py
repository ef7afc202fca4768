# SPDX-License-Identifier: MIT
"""Networks with two heads: coordinates in, pixels and embeddings out. Only ``stored`` and ``summary`` know files."""
