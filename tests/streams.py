# SPDX-License-Identifier: MIT
"""AV1 streams and planes taken apart, for tests."""

from nervcodec.base import codec, obu
from nervcodec.base.obu import checked_units


def delimited(stream):
    """The stream with a temporal delimiter before each unit, as decoders want it."""
    return b"".join(obu.DELIMITER + unit for unit in obu.temporal_units(stream))


def samples_of(planes):
    """All samples of planes, one plane after the other, as FFmpeg's rawvideo has them."""
    return b"".join(plane.tobytes() for plane in planes)


def decode_stream(stream, form, width, height, count, first=0):
    """The frames of a stream from one on."""
    return list(codec.decode(checked_units(stream, count)[first:], form, width, height))
