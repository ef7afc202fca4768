# SPDX-License-Identifier: MIT
"""Everything ``encode`` can be told, and the presets. Standard library only."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from nervcodec.errors import ConfigError
from nervcodec.fitting.config import FitConfig
from nervcodec.formats.header import MAX_TEXT
from nervcodec.ranges import parse_duration, parse_pair, parse_scale, parse_size
from nervcodec.settings import typed
from nervcodec.split import FrameSplit, parse_split
from nervcodec.video.source import SourceOptions


@dataclass(frozen=True)
class NetworkOptions:
    """The network's shape.

    Attributes:
        embed: ``grid``, or ``pe_BASE_LEVELS`` for the original method.
        parameters: about how many the grid network gets; None: chosen from the video.
        fc_hw, fc_dim, strides, reduce, lower_width: of the original method's network.
    """

    embed: str = "grid"
    parameters: int | None = None
    fc_hw: tuple[int, int] = (9, 16)
    fc_dim: int = 192
    strides: tuple[int, ...] = (5, 3, 2, 2, 2)
    reduce: float = 1.2
    lower_width: int = 32

    def __post_init__(self) -> None:
        if self.embed != "grid":
            self.positional_encoding  # noqa: B018 - raises when it is neither

    @property
    def positional_encoding(self) -> tuple[float, int]:
        """(base, levels) of ``pe_BASE_LEVELS``."""
        match = re.fullmatch(r"pe_(\d+(?:\.\d+)?)_(\d{1,3})", self.embed)
        if not match:
            raise ConfigError(f"unknown positional encoding {self.embed!r}; write grid or pe_1.25_80")
        return float(match.group(1)), int(match.group(2))


@dataclass(frozen=True)
class EncodeOptions:
    """All settings of an encode.

    Attributes:
        source: which frames and pixels.
        patches: rows and columns of the patch grid.
        network: its shape.
        fit: how it is fitted; its time is for the whole video and shared among segments by their length.
        encoder: ``auto``, ``offline``, ``none`` or ``openclip:...``.
        semantic_fps: frames a second that get reference embeddings.
        split: which frames are held out from the fit; None: none. A text such as ``6_6_10`` is parsed.
        size_bytes: of the whole container, to be reached from below; None: less than the source has.
        bpp: the same in bits per pixel; at most one of the two.
        segment: longest segment, ``10s``, ``250f`` or ``none``.
        audio: ``copy`` keeps the source's audio packets as they are, ``none`` leaves them out.
        resume: go on from the checkpoint that an encode with the same source and options left when it was killed.
        log_dir: a folder for TensorBoard's event files; None: no log.
        device, precision: ``auto`` or as :func:`nervcodec.device.choose`.
    """

    source: SourceOptions = field(default_factory=SourceOptions)
    patches: tuple[int, int] = (2, 4)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    fit: FitConfig = field(default_factory=FitConfig)
    encoder: str = "auto"
    semantic_fps: float = 5.0
    split: FrameSplit | None = None
    size_bytes: float | None = None
    bpp: float | None = None
    segment: str = "10s"
    audio: str = "copy"
    resume: bool = False
    log_dir: str | None = None
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.semantic_fps <= 1000:
            raise ConfigError("--semantic-fps must be above 0 and at most 1000")
        if self.size_bytes is not None and self.bpp is not None:
            raise ConfigError("choose at most one of --size and --bpp")
        for name, value in (("--size", self.size_bytes), ("--bpp", self.bpp)):
            if value is not None and not 0 < value < 1e15:
                raise ConfigError(f"{name} must be above 0")
        if self.audio not in ("copy", "none"):
            raise ConfigError(f"unknown audio {self.audio!r}; there are copy and none")
        if len(self.encoder) > MAX_TEXT or not self.encoder.isprintable():
            raise ConfigError(f"a container cannot record an encoder of this name: {self.encoder!r:.60}")
        if isinstance(self.split, str):
            object.__setattr__(self, "split", parse_split(self.split))


# The original dual-head method, as its authors ran it: nothing of ours in the fit.
_ORIGINAL: dict[str, object] = {
    "embed": "pe_1.25_80",
    "fc_hw": (9, 16),
    "optimizer": "adam",
    "lr": 0.001,
    "lr_type": "cosine_0.1_1_0.1",
    "loss": "fusion6",
    "semantic_loss": "cosine",
    "semantic_weight": 0.1,
    "pixel_warmup": 50.0,
    "rounding_share": 0.0,
}
_BALANCED: dict[str, object] = {
    **_ORIGINAL,
    "fc_dim": 192,
    "strides": (5, 3, 2, 2, 2),
    "batch_size": 12,
    "epochs": 300,
    "split": "6_6_10",
}

# What a preset changes of the defaults, by option name.
PRESETS: dict[str, dict[str, object]] = {
    "default": {},
    "comparable": {
        **_ORIGINAL,
        "fc_dim": 96,
        "strides": (5, 2, 2),
        "reduce": 1.5,
        "lower_width": 12,
        "batch_size": 8,
        "epochs": 300,
        "split": "9_10_10",
        "semantic_weight": 0.2,
    },
    "balanced": _BALANCED,
    "fast": {**_BALANCED, "batch_size": 16, "epochs": 100, "pixel_warmup": 20.0, "eval_every": 20},
    "full": {**_BALANCED, "fc_dim": 256, "batch_size": 4},
    "hq": {
        **_BALANCED,
        "fc_dim": 384,
        "strides": (5, 3, 2, 2, 2, 2),
        "loss": "l2",
        "lr": 0.0015,
        "reduce": 1.15,
        "lower_width": 48,
        "epochs": 150,
        "pixel_warmup": 30.0,
    },
    "debug": {"time_s": 3.0, "segment": "1s"},
}


_OF_PATCH_NETWORKS = ("fc_hw", "fc_dim", "strides", "reduce", "lower_width")
_OF_GRID_NETWORKS = ("parameters",)


def _refuse_without_effect(given: set[str], embed: str) -> None:
    """Options of the other kind of network.

    Raises:
        ConfigError: there is one.
    """
    grid = embed == NetworkOptions.embed
    for name in _OF_PATCH_NETWORKS if grid else _OF_GRID_NETWORKS:
        if name in given:
            fitting = "--embed pe_1.25_80" if grid else "--embed grid"
            raise ConfigError(f"--{name.replace('_', '-')} has no effect with --embed {embed}; it is for {fitting}")


# What --debug-run sets, whatever the preset: a handful of batches of a quarter of a second, and one evaluation.
DEBUG_RUN: dict[str, object] = {"duration_s": 0.25, "epochs": 1, "time_s": 10.0, "eval_every": 1}


# Parts of EncodeOptions whose settings are given without nesting.
_PARTS: dict[str, type] = {"source": SourceOptions, "network": NetworkOptions, "fit": FitConfig}

# What may be given as a text, as the command line has it.
_AS_TEXT: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("time_s", "start_s", "duration_s"), parse_duration),
    **dict.fromkeys(("patches", "crop", "fc_hw"), parse_pair),
    "size_bytes": parse_size,
    "scale": parse_scale,
    "split": parse_split,
}
_LEAST = dict.fromkeys(("patches", "crop", "fc_hw", "fc_dim", "strides", "lower_width", "parameters", "reduce"), 1)
_LEAST.update(start_s=0, seed=0)
_ABOVE_0 = ("duration_s", "scale", "frame_rate")


def _checked(name: str, kind: type, value: object) -> object:
    """The value of a setting as the class ``kind`` wants it.

    Raises:
        ConfigError: of a wrong type, or too small.
    """
    if isinstance(value, str) and name in _AS_TEXT:
        try:
            value = _AS_TEXT[name](value)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
    value = typed(name, typing.get_type_hints(kind)[name], value)
    numbers = value if isinstance(value, tuple) else (value,)
    if name in _LEAST and min(numbers) < _LEAST[name]:
        raise ConfigError(f"{name} must be {_LEAST[name]} or more, not {value}")
    if name in _ABOVE_0 and min(numbers) <= 0:
        raise ConfigError(f"{name} must be above 0, not {value}")
    return value


def from_flat(**values: object) -> EncodeOptions:
    """Build options from names without nesting, as the command line and ``nervcodec.encode`` have them.

    A preset's values come first, then those given; values that are None count as not given. ``debug_run=True`` makes
    it a matter of seconds, to see whether everything works.

    Raises:
        ConfigError: an unknown name or preset, or a value out of range.
    """
    preset = values.pop("preset", None) or "default"
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r:.60}; there are {', '.join(PRESETS)}")
    given = {name for name, value in values.items() if value is not None}
    debug = DEBUG_RUN if typed("debug_run", bool, values.pop("debug_run", None) or False) else {}
    merged = {**PRESETS[preset], **{k: v for k, v in values.items() if v is not None}, **debug}
    parts: dict[type, dict[str, object]] = {}
    for kind in (SourceOptions, NetworkOptions, FitConfig, EncodeOptions):
        own = {f.name for f in fields(kind)} - set(_PARTS)
        parts[kind] = {name: _checked(name, kind, merged.pop(name)) for name in list(merged) if name in own}
    if merged:
        raise ConfigError(f"unknown option {min(merged)!r}")
    _refuse_without_effect(given, str(parts[NetworkOptions].get("embed", NetworkOptions.embed)))
    built = {name: kind(**parts[kind]) for name, kind in _PARTS.items()}
    return EncodeOptions(**built, **parts[EncodeOptions])  # type: ignore[arg-type]
