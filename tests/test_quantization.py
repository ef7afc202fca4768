# SPDX-License-Identifier: MIT
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nervcodec.errors import ContainerError
from nervcodec.formats.quantization import AFFINE8, FLOAT16, SMALL_TENSOR, TensorCode, dequantize, quantize

values = st.floats(-1e4, 1e4, width=32)


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=20), elements=values))
def test_error_is_within_half_a_step(array):
    stored, code = quantize(array)
    restored = dequantize(stored, code)
    assert restored.shape == array.shape
    if code.codec == AFFINE8:
        assert np.abs(restored - array).max() <= code.scale * 0.51 + 1e-3
    else:
        assert np.allclose(restored, array, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.ones(1), np.full(1000, 0.3), np.zeros(1000)])
def test_dull_tensors_survive(array):
    stored, code = quantize(array)
    assert np.allclose(dequantize(stored, code), array, rtol=1e-3)


def test_small_tensors_stay_float():
    assert quantize(np.ones(SMALL_TENSOR - 1))[1].codec == FLOAT16
    assert quantize(np.ones(SMALL_TENSOR))[1].codec == AFFINE8


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    array = np.ones(500, np.float32)
    array[3] = bad
    with pytest.raises(ContainerError, match="NaN or infinite"):
        quantize(array)


def test_damaged_codes_are_refused():
    with pytest.raises(ContainerError, match="newer nervcodec"):
        dequantize(np.zeros(3, np.uint8), TensorCode("rans"))
    with pytest.raises(ContainerError, match="not float32"):
        dequantize(np.zeros(3, np.float32), TensorCode(AFFINE8))
    with pytest.raises(ContainerError, match="not uint8"):
        dequantize(np.zeros(3, np.uint8), TensorCode(FLOAT16))
    with pytest.raises(ContainerError, match="NaN or infinite"):
        dequantize(np.full(3, 255, np.uint8), TensorCode(AFFINE8, scale=3e38, offset=3e38))


def test_codes_are_pinned():
    """A change here changes what old files mean."""
    stored, code = quantize(np.linspace(-1, 1, 256, dtype=np.float32))
    assert stored.tolist() == list(range(256))
    assert (code.codec, code.offset) == ("affine8", -1.0)
    assert code.scale == pytest.approx(2 / 255)
