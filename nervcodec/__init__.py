# SPDX-License-Identifier: MIT
"""nervcodec: a video codec that turns a video into one small, searchable neural network.

>>> import nervcodec
>>> nervcodec.encode("Kitchen.mp4", "kitchen.nerv", time_s=180)      # doctest: +SKIP
>>> video = nervcodec.open("kitchen.nerv")                           # doctest: +SKIP
>>> video[0].shape, video.search("sink")[0].start_s                  # doctest: +SKIP

Nothing heavy is imported here: names are resolved on first use, so that reading a header
(``nervcodec.formats``) or asking the command for help never loads torch.
"""

from __future__ import annotations

import importlib
import operator
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "encode": ("nervcodec.encoding", "encode"),
    "encode_many": ("nervcodec.jobs.scheduler", "encode_many"),
    "open": ("nervcodec.decoding", "NervVideo.open"),
    "NervVideo": ("nervcodec.decoding", "NervVideo"),
    "evaluate": ("nervcodec.evaluation.compare", "evaluate"),
    "NervError": ("nervcodec.errors", "NervError"),
}
__all__ = ["NervError", "NervVideo", "__version__", "encode", "encode_many", "evaluate", "open"]

if TYPE_CHECKING:
    from nervcodec.decoding import NervVideo
    from nervcodec.encoding import encode
    from nervcodec.errors import NervError
    from nervcodec.evaluation.compare import evaluate
    from nervcodec.jobs.scheduler import encode_many

    open = NervVideo.open


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module 'nervcodec' has no attribute {name!r}") from None
    return operator.attrgetter(attribute)(importlib.import_module(module))
