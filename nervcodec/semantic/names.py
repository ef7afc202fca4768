# SPDX-License-Identifier: MIT
"""Names of semantic encoders. Standard library only."""

AUTO, OFFLINE, NONE, OPENCLIP = "auto", "offline", "none", "openclip:"  # the last begins names
DEFAULT_OPENCLIP = f"{OPENCLIP}ViT-B-32/laion2b_s34b_b79k"
FORMS = (AUTO, OFFLINE, NONE, f"{OPENCLIP}MODEL/PRETRAINED", f"{OPENCLIP}PATH", f"{OPENCLIP}MODEL=PATH")
