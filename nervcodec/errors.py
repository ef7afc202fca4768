# SPDX-License-Identifier: MIT
"""The errors nervcodec raises on purpose. Each message says what is wrong, with which file, and what to do."""


class NervError(Exception):
    """Base of every error that a caller of nervcodec may want to catch."""


class VideoError(NervError):
    """A source video cannot be read, or an output video cannot be written."""


class ContainerError(NervError):
    """A ``.nerv`` file is damaged, foreign, too new, or its header states impossible values."""


class ConfigError(NervError):
    """An option or a configuration value is out of range or does not fit the video."""


class EncoderError(NervError):
    """A semantic encoder (OpenCLIP, offline) cannot be loaded, or is not the one a container needs."""


class DivergedError(NervError):
    """The fit produced values that are not finite, so there is nothing worth writing."""
