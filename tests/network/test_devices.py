# SPDX-License-Identifier: MIT
"""Nothing mixes up devices: every path of a network on fake CUDA tensors, where a CPU tensor that meets one raises.

They need no GPU. The backward pass and generators on CUDA do not work with them, so those are not tried.
"""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

from nervcodec import sizing
from nervcodec.network.build import build
from nervcodec.network.config import Geometry, PatchConfig, SemanticConfig
from nervcodec.network.field import Inputs
from nervcodec.network.heads import semantic_head
from nervcodec.network.shapes import is_self_contained
from nervcodec.training import losses, quantization
from nervcodec.training.datasets import ReferenceEmbeddings, SegmentData, training_set

GEOMETRY = Geometry(6, 48, 64, 2, 4)
CODES = (0, 2, 4)
GRID = sizing.grid_config(
    GEOMETRY, 30_000, SemanticConfig(12, rank=4, code_frames=CODES), sizing.SegmentTraits(cuts=(3,))
)
POOLED = sizing.grid_config(GEOMETRY, 30_000, SemanticConfig(12, rank=4, grid_channels=4, grid_times=4))
PATCH = PatchConfig(
    GEOMETRY, 1.25, 10, (3, 4), 8, (2, 2), 1.2, 6, SemanticConfig(12, hidden=8, rank=4, grid_channels=0, grid_times=1)
)
NETWORKS = {"grid": GRID, "grid, pooled": POOLED, "pe": PATCH}
# Made before anything is fake, since the original method's network reads them.
REAL_UNITS, REAL_FRAMES = torch.arange(3), torch.tensor([0, 5])
FRAMES = np.zeros((GEOMETRY.frames, GEOMETRY.height, GEOMETRY.width, 3), np.uint8)
REAL_INPUTS = {
    config: training_set(build(config), SegmentData(FRAMES), "cpu").inputs(REAL_UNITS) for config in NETWORKS.values()
}


@pytest.fixture(params=NETWORKS)
def config(request):
    return NETWORKS[request.param]


@pytest.fixture
def cuda():
    """CUDA tensors that hold nothing; what follows from a configuration is made on the CPU and moved, as it is."""
    shapes = ShapeEnv(allow_scalar_outputs=True, allow_dynamic_output_shape_ops=True)
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=shapes):
        yield "cuda"


def on(device, config):
    with torch.device(device):
        return build(config)


def test_a_cpu_tensor_among_cuda_tensors_is_detected(cuda):
    field = on(cuda, GRID)
    assert field.device.type == "cuda"
    with pytest.raises(RuntimeError, match="device"):
        field.pixels(torch.zeros(1, 4, 4, GRID.widths[-1]))


def test_the_forward_pass_and_both_losses(cuda, config):
    field = on(cuda, config)
    units, numbers = training_set(field, SegmentData(FRAMES), cuda), REAL_UNITS
    rows = torch.zeros(3, dtype=torch.long, device=cuda)
    pixels, centred = field(REAL_INPUTS[config], with_semantics=True)
    expected = units.targets(numbers.to(cuda), pixels.dtype)
    assert pixels.device.type == centred.device.type == "cuda"
    for name in ("log-l2", "l1", "fusion6"):
        assert losses.PIXEL[name](pixels, expected, units.to_images).device.type == "cuda"
    reference = torch.zeros(3, 8, 12, device=cuda)
    packed = units.embeddings(reference, rows, numbers.to(cuda))
    variance = reference.square().sum()
    assert losses.semantic_loss(centred, packed, variance).device.type == "cuda"
    assert losses.cosine_loss(centred, packed).device.type == "cuda"


def test_rounding(cuda, config, monkeypatch):
    monkeypatch.setattr(quantization.torch, "Generator", lambda _device: FakeGenerator())
    field = on(cuda, config)
    rounded = quantization.QuantizedField(field, quantization.COARSE, 0)
    assert all(p.device.type == "cuda" for p in rounded.parameters())
    monkeypatch.setattr(quantization.torch, "rand", lambda shape, generator, device: torch.zeros(shape, device=device))
    with torch.no_grad():
        pixels, _ = rounded(REAL_INPUTS[config], True)
        assert pixels.device.type == rounded.bits_per_parameter().device.type == "cuda"


class FakeGenerator:
    """In place of CUDA's, which fake tensors do not know."""

    def manual_seed(self, _seed):
        return self


def test_rendering_of_frames_patches_and_windows(cuda, config):
    field = on(cuda, config)
    frames = REAL_FRAMES
    with torch.no_grad():
        assert field.render(Inputs(frames)).shape == (2, 48, 64, 3)
        patch = field.render(Inputs(frames, (GEOMETRY.patches.patch(1, 2),)))
    assert patch.shape == (2, 24, 16, 3)
    assert patch.device.type == "cuda"


def test_the_semantic_head(cuda, config):
    field = on(cuda, config)
    coefficients = field.coefficients(Inputs(REAL_FRAMES))
    assert coefficients.shape == (2, 8, 4)
    embeddings = field.semantic.embeddings(field.semantic.directions(coefficients))
    assert embeddings.shape == (2, 8, 12)
    assert embeddings.device.type == "cuda"


def test_a_head_that_stands_alone(cuda):
    """As search loads it: weights from a file, then the device."""
    assert is_self_contained(GRID)
    with torch.device(cuda):
        head = semantic_head(GRID, GRID.widths[0])
    coefficients = head.coefficients(None, REAL_FRAMES.to(cuda))
    assert coefficients.shape == (2, 8, 4)
    assert coefficients.device.type == "cuda"


def test_reference_embeddings(cuda):
    data = SegmentData(
        np.zeros((6, 48, 64, 3), np.uint8), np.ones((3, 8, 12), np.float32), np.array(CODES), None,
        np.ones((1, 8, 12), np.float32), np.array([3]),
    )  # fmt: skip
    reference = ReferenceEmbeddings(data, 6, is_raw=False, device=cuda)
    assert reference.centred.device.type == reference.mean.device.type == "cuda"
    assert reference.rows(torch.tensor([0, 1, 2])).device.type == "cpu"  # looked up before a batch is moved
    assert {frame: vector.device.type for frame, vector in reference.by_frame.items()} == dict.fromkeys(
        (0, 2, 3, 4), "cuda"
    )


class Crossings(TorchDispatchMode):
    """Notes what a step that is recorded as a CUDA graph must not do: bring a tensor to the GPU, or look at one."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        name, given = operator.overloadpacket.__name__, [x for x in args if isinstance(x, torch.Tensor)]
        moves = name in ("_to_copy", "copy_") and {x.device.type for x in (*given, result)} == {"cpu", "cuda"}
        masks = name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1])
        if moves or masks or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.found.append(name)
        return result


def test_a_copy_between_devices_is_detected(cuda):
    with Crossings() as crossings:
        torch.zeros(2, device=cuda).new_tensor([0.5])
        torch.zeros(2).to(cuda)
        torch.zeros(2, device=cuda)[torch.zeros(2, device=cuda) > 0]
    assert len(crossings.found) == 3


@pytest.mark.parametrize("name", ["grid", "grid, pooled"])
def test_a_captured_step_copies_nothing_to_the_gpu(cuda, name, monkeypatch):
    monkeypatch.setattr(quantization.torch, "Generator", lambda _device: FakeGenerator())
    monkeypatch.setattr(quantization.torch, "rand", lambda shape, generator, device: torch.zeros(shape, device=device))
    field = on(cuda, NETWORKS[name])
    units, rounded = (
        training_set(field, SegmentData(FRAMES), cuda),
        quantization.QuantizedField(field, quantization.COARSE, 0),
    )
    assert units.supports_cuda_graphs
    numbers, rows = torch.arange(3, device=cuda), torch.zeros(2, dtype=torch.long, device=cuda)
    reference = torch.zeros(3, 8, 12, device=cuda)

    def step():
        for run in (field, rounded):
            pixels, centred = run(units.inputs(numbers), True)
            target = units.targets(numbers, pixels.dtype)
            for loss in losses.CUDA_GRAPH_LOSSES:
                losses.PIXEL[loss](pixels, target, units.to_images)
            packed = units.embeddings(reference, rows, numbers.index_select(0, rows))
            losses.semantic_loss(centred.index_select(0, rows), packed, reference.square().sum())
            losses.cosine_loss(centred.index_select(0, rows), packed)
        rounded.bits_per_parameter()

    step()  # what follows from the configuration is made, and moved, the first time
    with Crossings() as crossings:
        step()
    assert crossings.found == []
