# SPDX-License-Identifier: MIT
"""HDR10 and HLG: what a source states of its light is in the AV1 stream, and in the file that --base-only writes."""

import struct

import av
import pytest

import nervcodec
from nervcodec.base.export import write_base
from nervcodec.formats.container import Container
from nervcodec.media.planes import Light
from nervcodec.media.source import scan
from nervcodec.semantic.encoder import load
from nervcodec.semantic.patches import embed_patches

COLOURS = "colorprim=bt2020:transfer={}:colormatrix=bt2020nc:log-level=none"
DISPLAY = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
LIGHT = Light((0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329, 0.005, 1000.0), (1000, 400))
CLIPS = {
    "hdr10.mp4": ("smpte2084", f":{DISPLAY}:max-cll=1000,400", LIGHT),
    "display.mp4": ("smpte2084", f":{DISPLAY}", Light(LIGHT.display)),
    "hlg.mp4": ("arib-std-b67", "", None),
    "vp9.webm": ("smpte2084", f":{DISPLAY}:max-cll=1000,400", LIGHT),  # the container states it
}


def stated(frame):
    """Of a decoded frame, as AV1 rounds it."""
    display, content = (frame.side_data.get(name) for name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"))
    pairs = None if display is None else struct.unpack("=22i", bytes(display))[:20]
    return (
        None if pairs is None else tuple(a / b for a, b in zip(pairs[::2], pairs[1::2], strict=True)),
        None if content is None else struct.unpack("=2I", bytes(content)),
    )


def decoded(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("name", CLIPS)
def test_what_a_source_states_of_its_light_is_kept(name, tmp_path, ffmpeg):
    transfer, more, light = CLIPS[name]
    made = clip = tmp_path / "made.mp4"
    source = ["-f", "lavfi", "-i", "testsrc2=s=128x96:r=10:d=1", "-pix_fmt", "yuv420p10le"]
    ffmpeg(*source, "-c:v", "libx265", "-x265-params", COLOURS.format(transfer) + more, made)
    if name.endswith("webm"):
        ffmpeg("-i", made, "-c:v", "libvpx-vp9", clip := tmp_path / name)
    assert scan(clip).light == light
    nervcodec.encode(clip, tmp_path / "a.nerv", base="av1", crf=50, encoder="none", segment="5f")
    with Container.open(tmp_path / "a.nerv") as opened:
        assert (opened.header.base.planes.transfer, opened.header.base.planes.primaries) == (
            decoded(clip)[0].color_trc,
            9,
        )
        for suffix in (".mp4", ".mkv"):
            write_base(opened, tmp_path / f"out{suffix}")
    for suffix in (".mp4", ".mkv"):
        for frame in decoded(tmp_path / f"out{suffix}"):
            display, content = stated(frame)
            assert frame.color_trc == decoded(clip)[0].color_trc
            assert display == (light and pytest.approx(light.display, abs=1e-4))
            assert content == (light and light.content)


def test_embeddings_are_made_from_tone_mapped_frames(bunny, tmp_path, ffmpeg):
    clip = tmp_path / "bunny.mp4"
    tags = COLOURS.format("smpte2084") + ":max-cll=600,100"
    cut = ["-i", bunny, "-vf", "scale=320:160,fps=2", "-frames:v", "2", "-an"]
    ffmpeg(*cut, "-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-x265-params", tags, clip)
    nervcodec.encode(clip, tmp_path / "a.nerv", base="copy", encoder="offline")
    with nervcodec.open(tmp_path / "a.nerv") as video:
        stored, encoder = video.embeddings([0, 1]), load("offline")
        mapped, plain = (
            float((embed_patches(video.frames([0, 1], tone_map=tone_map), video.grid, encoder) * stored).sum(-1).mean())
            for tone_map in (True, False)
        )
    assert mapped > 0.97
    assert plain < mapped - 0.05
    report = nervcodec.evaluate(tmp_path / "a.nerv", clip)
    assert report.fidelity["train"].semantic["cosine"] == pytest.approx(mapped, abs=0.02)
