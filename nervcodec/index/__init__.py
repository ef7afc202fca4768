# SPDX-License-Identifier: MIT
"""The index of all containers below a folder: an SQLite database that selects the candidates of a search."""
