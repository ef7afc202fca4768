# SPDX-License-Identifier: MIT
"""A picture in a file as viewers show it: upright, 8 bits, on white where it is transparent, the first of several."""

from __future__ import annotations

import stat
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nervcodec.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

_MOST = 4096  # pixels on the longer side; encoders look at a few hundred
_FULL_SCALES = (1, 255, 65_535)  # white, in pictures of floating-point numbers


def read_image(path: Path) -> np.ndarray:
    """Pixels of an image file, ``(H, W, 3)`` uint8 RGB.

    Raises:
        ConfigError: no image, damaged, cut short, no regular file, or of more pixels than Pillow takes for harmless.
    """
    from PIL import Image, ImageOps

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: is no image but a folder, pipe or device; copy what it holds to a file")
        with warnings.catch_warnings():
            # Pillow's remarks on odd metadata and on many pixels, which it takes all the same.
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                opened.load()
                image = _opaque(ImageOps.exif_transpose(opened))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        reason = "the picture is cut short or damaged" if isinstance(error, struct.error) else error
        raise ConfigError(f"{path}: is no image that can be read ({reason})") from None
    image.thumbnail((_MOST, _MOST), Image.Resampling.LANCZOS)
    return np.array(image)


def _opaque(image: Image.Image) -> Image.Image:
    """As RGB."""
    from PIL import Image

    if image.mode[0] in "IF":
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Grey levels of 16 bits, 32 bits or floating-point numbers, ``(H, W)``, as uint8.

    Integers are taken for 16 bits, floating-point numbers for what holds them of 0 to 1, to 255 and to 65,535. What
    goes beyond is stretched from its least value to its largest.
    """
    levels = np.nan_to_num(values.astype(np.float64))
    low, high = float(levels.min()), float(levels.max())
    scales = [scale for scale in _FULL_SCALES if values.dtype.kind == "f" or scale == _FULL_SCALES[-1]]
    fitting = [scale for scale in scales if low >= 0 and high <= scale]
    if fitting:
        low, high = 0.0, float(fitting[0])
    return np.rint((levels - low) * 255 / max(high - low, 1e-12)).astype(np.uint8)
