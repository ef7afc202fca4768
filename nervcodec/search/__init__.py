# SPDX-License-Identifier: MIT
"""Search: embeddings of containers, query vectors, and the moments that match."""
