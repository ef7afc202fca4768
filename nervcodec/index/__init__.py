# SPDX-License-Identifier: MIT
"""An index of all containers below a folder, kept by LanceDB beside them, that chooses which of them search looks into.

Only this room imports lancedb, and only when an index is written or read (extra ``library``). Nothing below imports it.
"""
