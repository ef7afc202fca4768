# SPDX-License-Identifier: MIT
"""Reference image-text encoders and embeddings by them. Only encoding, evaluation and search import them."""
