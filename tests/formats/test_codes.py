# SPDX-License-Identifier: MIT
"""The codes of files of version 1, which are still read."""

import numpy as np
import pytest

from nervcodec.errors import ContainerError
from nervcodec.formats.codes import AFFINE8, FLOAT16, TensorCode, dequantize


def test_codes_are_pinned():
    """A change here changes what old files mean."""
    values = dequantize(np.arange(256, dtype=np.uint8), TensorCode("affine8", 2 / 255, -1.0))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, np.linspace(-1, 1, 256), atol=1e-6)
    assert dequantize(np.array([1.5], np.float16), TensorCode("float16")).tolist() == [1.5]


def test_damaged_codes_are_refused():
    with pytest.raises(ContainerError, match="newer nervcodec"):
        dequantize(np.zeros(3, np.uint8), TensorCode("rans"))
    with pytest.raises(ContainerError, match="not float32"):
        dequantize(np.zeros(3, np.float32), TensorCode(AFFINE8))
    with pytest.raises(ContainerError, match="not uint8"):
        dequantize(np.zeros(3, np.uint8), TensorCode(FLOAT16))
    with pytest.raises(ContainerError, match="NaN or infinite"):
        dequantize(np.full(3, 255, np.uint8), TensorCode(AFFINE8, scale=3e38, offset=3e38))
