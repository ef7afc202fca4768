# SPDX-License-Identifier: MIT
"""The text embeddings that the offline encoder ships: ``python tests/class_vectors.py`` makes them again.

Vectors of classes are float32, since a container's bytes follow from them; those of words, which only a search reads,
are float16. The shipped vectors of classes were computed in torch: what numpy gives differs by 2e-7, which decides
between moments whose scores are as close as that.
"""

import hashlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save

import nervcodec.semantic
from nervcodec.semantic.classes import TEMPLATE, class_names, read_vocabulary
from nervcodec.semantic.offline import MiniLM

FOLDER = Path(nervcodec.semantic.__file__).parent
MODEL = "all-MiniLM-L6-v2"


def texts() -> dict[str, list[str]]:
    """What is embedded, by the name of its file."""
    return {"classes": class_names(), "words": [TEMPLATE.format(word) for word in read_vocabulary(class_names()).words]}


def metadata(embedded: list[str]) -> dict[str, str]:
    """The model and a checksum of the texts; one entry, since several are written in any order."""
    return {"origin": f"{MODEL} {hashlib.blake2b(chr(10).join(embedded).encode(), digest_size=8).hexdigest()}"}


if __name__ == "__main__":
    for name, embedded in texts().items():
        vectors = MiniLM().embed(embedded).astype(np.float32 if name == "classes" else np.float16)
        (FOLDER / f"{name}.safetensors").write_bytes(save({"vectors": vectors}, metadata(embedded)))
