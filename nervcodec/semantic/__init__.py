# SPDX-License-Identifier: MIT
"""Reference image-text encoders and what is done with their embeddings. Only encode, eval and search come here."""
