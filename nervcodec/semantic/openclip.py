# SPDX-License-Identifier: MIT
"""OpenCLIP models as semantic encoders (Cherti et al. 2022, arXiv:2212.07143), through ``open_clip_torch``."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from nervcodec.errors import EncoderError

_HUB_PROBE_S = 5.0
DEFAULT_MODEL = "ViT-B-32"


def split_name(name: str) -> tuple[str, str]:
    """Model and weights of ``openclip:MODEL/PRETRAINED``, ``openclip:PATH`` or ``openclip:MODEL=PATH``.

    A path alone is a checkpoint of the default model, ViT-B-32. With ``=`` the model may also be the path of an
    OpenCLIP model configuration (``.json``).

    Raises:
        EncoderError: nothing after the colon.
    """
    rest = name.removeprefix("openclip:")
    if "=" in rest:
        model, _, weights = rest.partition("=")
        return model, weights
    if os.path.isfile(os.path.expanduser(rest)):
        return DEFAULT_MODEL, rest
    model, slash, weights = rest.partition("/")
    if not model or not slash or not weights:
        raise EncoderError(f"{name!r}: no such checkpoint file, and not of the form openclip:MODEL/PRETRAINED")
    return model, weights


class OpenClipEncoder:
    """An OpenCLIP model. Weights come from the Hugging Face cache, a local file, or the hub on first use."""

    def __init__(self, name: str, device: str = "cpu"):
        import open_clip

        self.name, self.device = name, device
        model, weights = split_name(name)
        if model.endswith(".json"):
            path = Path(os.path.expanduser(model))
            if not os.path.isfile(path):
                raise EncoderError(f"{model}: no such model configuration")
            open_clip.add_model_config(path)
            model = path.stem
        if model not in open_clip.list_models():
            raise EncoderError(f"OpenCLIP knows no model {model!r}")
        local = os.path.expanduser(weights)
        if os.path.isfile(local):
            weights = local
        elif open_clip.get_pretrained_cfg(model, weights):
            _require_weights(open_clip.get_pretrained_cfg(model, weights), name)
        else:
            raise EncoderError(f"{weights}: no such file, and OpenCLIP has no weights of that name for {model}")
        logging.getLogger().setLevel(max(logging.getLogger().level, logging.WARNING))
        try:
            network, _, self.preprocess = open_clip.create_model_and_transforms(
                model, pretrained=weights, device=device, weights_only=True
            )
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise EncoderError(f"{name}: the weights cannot be loaded ({reason})") from None
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(model)
        self.templates = open_clip.SIMPLE_IMAGENET_TEMPLATES
        self.dimension = int(self.embed_text(["a"]).shape[1])

    @torch.inference_mode()
    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """See :class:`nervcodec.semantic.encoder.SemanticEncoder`."""
        from PIL import Image

        if not len(images):
            return np.empty((0, self.dimension), np.float32)
        with ThreadPoolExecutor(os.cpu_count() if self.device == "cuda" else 1) as pool:  # a CPU has no idle cores
            prepared = list(pool.map(lambda image: self.preprocess(Image.fromarray(image)), images))
        batch = torch.stack(prepared).to(self.device)
        return F.normalize(self.network.encode_image(batch).float(), dim=-1).cpu().numpy()

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """The mean of each text in the seven simple prompt templates of OpenCLIP; see the protocol."""
        rows = []
        for text in texts:
            tokens = self.tokenizer([template(text) for template in self.templates]).to(self.device)
            vectors = F.normalize(self.network.encode_text(tokens).float(), dim=-1)
            rows.append(F.normalize(vectors.mean(dim=0), dim=-1))
        return torch.stack(rows).cpu().numpy()


def _require_weights(pretrained: dict, name: str) -> None:
    """Fail at once, not after minutes of retries, if the weights are not cached and the hub does not answer.

    Raises:
        EncoderError: the weights are not in the cache and cannot be downloaded.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository = pretrained.get("hf_hub", "").rstrip("/")
    if not repository:
        return  # weights at a plain URL: open_clip's own download reports errors
    names = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in names):
        return
    if constants.HF_HUB_OFFLINE:
        raise EncoderError(f"{name}: the weights are not in the cache and HF_HUB_OFFLINE forbids fetching them")
    try:
        get_hf_file_metadata(hf_hub_url(repository, names[0]), timeout=_HUB_PROBE_S)
    except Exception as error:
        raise EncoderError(
            f"{name}: the weights are not in the cache and the hub cannot be reached ({type(error).__name__})"
        ) from None
