# SPDX-License-Identifier: MIT
"""Test footage of a still camera with small moving people, and where they are.

    python benchmarks/street.py street.mp4 [--seconds 30] [--compare street.nerv]

The background is one frame of a street in the clip ``bikes``, enlarged, with sensor noise. A dozen people cross it, a
twentieth to a fifth of the frame's height tall. Their upper bodies are cut from other shots of ``bikes``; their legs
are drawn, and swing at the pace of their walk. ``--compare`` prints the PSNR of a container made from the clip: of all
pixels, of the 16 x 16 blocks that differ from the median picture, and of the others.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from end_to_end import clip
from PIL import Image, ImageDraw

import nervcodec

WIDTH, HEIGHT, RATE = 768, 326, 10
BACKGROUND = 182  # frame of ``bikes``
PEOPLE = 12
NOISE = 2.0  # standard deviation of the sensor noise, of 255
SCALE = 4  # people are drawn larger and reduced, for smooth edges

# Outlines of upper bodies in ``bikes``: the frame, and (x, y) in pixels, clockwise from the top of the head.
BODIES = {
    30: (
        *((285, 0), (312, 4), (318, 30), (312, 70), (300, 84), (350, 98), (368, 150), (382, 215), (383, 262)),
        *((345, 271), (168, 271), (164, 240), (165, 190), (178, 140), (192, 86), (240, 70), (258, 62), (250, 36)),
        *((254, 10),),
    ),
    126: (
        *((424, 2), (440, 10), (442, 26), (436, 50), (450, 56), (464, 64), (472, 90), (478, 125), (466, 140)),
        *((462, 150), (452, 152), (410, 142), (402, 110), (385, 102), (382, 96), (392, 84), (386, 72), (392, 56)),
        *(
            (408, 48),
            (408, 18),
        ),
    ),
}


@dataclass(frozen=True)
class Person:
    """Somebody who walks through the picture, and again from the other side of it.

    Attributes:
        body: frame of ``bikes`` that the upper body is cut from.
        height_px: from head to feet.
        feet_y: row of the ground below.
        speed: heights walked in a second, negative to the left.
        start_s: shift of the walk in time.
        tint: factors of red, green and blue of the clothes.
    """

    body: int
    height_px: float
    feet_y: float
    speed: float
    start_s: float
    tint: tuple[float, float, float]

    def x(self, time_s: float) -> float:
        """Column of the middle of the body."""
        track = WIDTH + 2 * self.height_px
        return (self.speed * self.height_px * (time_s + self.start_s)) % track - self.height_px


def people(seed: int = 0) -> list[Person]:
    """The people of the clip, from the back to the front."""
    rng = np.random.default_rng(seed)
    result = []
    for number, near in enumerate(np.linspace(0, 1, PEOPLE)):
        height = HEIGHT * (1 / 20 + near * (1 / 5 - 1 / 20))
        speed = rng.uniform(0.6, 0.9) * (-1 if number % 2 else 1)
        tint = tuple(rng.uniform(0.6, 2.4) * rng.uniform(0.75, 1.25, 3))
        result.append(
            Person(list(BODIES)[number % 2], height, HEIGHT * (0.58 + 0.4 * near), speed, rng.uniform(0, 60), tint)
        )
    return result


def upper_body(frames: list[np.ndarray], number: int) -> Image.Image:
    """A person down to the hips, cut out, RGBA."""
    outline = BODIES[number]
    left, top = (min(point[axis] for point in outline) for axis in (0, 1))
    right, bottom = (max(point[axis] for point in outline) for axis in (0, 1))
    mask = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in outline], fill=255)
    picture = Image.fromarray(frames[number][top:bottom, left:right]).convert("RGBA")
    picture.putalpha(mask)
    return picture


def draw(person: Person, body: Image.Image, time_s: float) -> Image.Image:
    """The person at a moment, RGBA, feet at the bottom edge, in a box as wide as high."""
    size = round(person.height_px * SCALE)
    picture = Image.new("RGBA", (size, size))
    pen = ImageDraw.Draw(picture)
    hip, leg, thick = 0.5 * size, 0.25 * size, max(1, round(0.085 * size))
    cloth = tuple(int(min(255, 40 * factor)) for factor in person.tint)
    phase = 2 * np.pi * 0.9 * time_s + person.start_s
    facing = np.sign(person.speed)
    for side, shade in ((np.pi, 0.7), (0.0, 1.0)):
        thigh = facing * 0.5 * np.sin(phase + side)
        shin = thigh - facing * (0.35 + 0.35 * np.cos(phase + side))
        knee = (size / 2 + leg * np.sin(thigh), hip + leg * np.cos(thigh))
        ankle = (knee[0] + leg * 0.92 * np.sin(shin), knee[1] + leg * 0.92 * np.cos(shin))
        colour = tuple(int(value * shade) for value in cloth)
        pen.line([(size / 2, hip - thick / 2), knee, ankle], fill=(*colour, 255), width=thick, joint="curve")
        toe = (ankle[0] + facing * 0.07 * size, ankle[1] + 0.01 * size)
        pen.line([ankle, toe], fill=(25, 20, 18, 255), width=max(1, thick // 2))
    tinted = np.asarray(body).astype(np.float32)
    tinted[int(0.25 * len(tinted)) :, :, :3] *= person.tint  # the head keeps its colour
    torso = Image.fromarray(tinted.clip(0, 255).astype(np.uint8), "RGBA")
    height = round(0.56 * size)
    torso = torso.resize((round(torso.width * height / torso.height), height), Image.Resampling.LANCZOS)
    if facing > 0:
        torso = torso.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    bob = round(0.012 * size * (1 + np.cos(2 * phase)))
    picture.alpha_composite(torso, (max(0, (size - torso.width) // 2), bob))
    small = max(1, round(person.height_px))
    return picture.resize((small, small), Image.Resampling.BOX)


def make(path: Path, seconds: float = 30, seed: int = 0) -> list[list[tuple[int, int, int, int]]]:
    """Write the clip.

    Args:
        path: of the MP4 file to write (H.264, crf 10, 768 x 326, 10 frames a second).
        seconds: its length.
        seed: of the people and the noise.

    Returns:
        For each frame, the boxes (x, y, width, height) of the people in it, in pixels, clipped to the frame.
    """
    with av.open(str(clip("bikes.mp4"))) as source:
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    bodies = {number: upper_body(frames, number) for number in BODIES}
    background = Image.fromarray(frames[BACKGROUND]).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    rng, crowd, boxes = np.random.default_rng(seed), people(seed), []
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": "10", "preset": "fast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        for number in range(round(seconds * RATE)):
            picture, inside = background.copy(), []
            for person in crowd:
                figure = draw(person, bodies[person.body], number / RATE)
                left = round(person.x(number / RATE) - figure.width / 2)
                above = round(person.feet_y - figure.height)
                picture.paste(figure, (left, above), figure)
                x, right = max(0, left + figure.width // 4), min(WIDTH, left + 3 * figure.width // 4)
                if x < right:
                    inside.append((x, above, right - x, figure.height))
            noisy = np.asarray(picture) + rng.normal(0, NOISE, (HEIGHT, WIDTH, 3))
            frame = av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), format="rgb24")
            frame.pts = number
            out.mux(stream.encode(frame))
            boxes.append(inside)
        out.mux(stream.encode())
    return boxes


def changing_blocks(frames: np.ndarray) -> np.ndarray:
    """Blocks of 16 x 16 pixels whose squared difference from the median picture is well above the noise.

    Args:
        frames: ``(N, H, W, 3)`` uint8.

    Returns:
        ``(N, ceil(H / 16), ceil(W / 16))`` bool.
    """
    median = np.median(frames[:: max(1, len(frames) // 60)], axis=0)
    difference = np.stack([block_means(np.square(frame - median).mean(axis=-1)) for frame in frames])
    return difference - 2 * np.median(difference, axis=0) > 48


def block_means(values: np.ndarray) -> np.ndarray:
    """Means over blocks of 16 x 16 of ``(H, W)``; blocks at the edge are filled up by repetition."""
    height, width = values.shape
    padded = np.pad(values, ((0, -height % 16), (0, -width % 16)), mode="edge")
    return padded.reshape(padded.shape[0] // 16, 16, -1, 16).mean(axis=(1, 3))


def compare(clip_path: Path, container: Path) -> None:
    """Print the PSNR of all pixels, of blocks that change, and of the others."""
    with av.open(str(clip_path)) as source:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)])
    changing = changing_blocks(frames)
    with nervcodec.open(container) as video:
        pairs = zip(video, frames, strict=True)
        error = np.stack([block_means(np.square(a.astype(np.float32) - b).mean(axis=-1)) for a, b in pairs])
    for name, where in (("all", error >= 0), ("changing", changing), ("others", ~changing)):
        psnr_db, share = 10 * np.log10(255**2 / error[where].mean()), error[where].sum() / error.sum()
        print(f"{name}: {psnr_db:.2f} dB, {where.mean():.1%} of the blocks, {share:.0%} of the error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--compare", type=Path, help="a container made from the clip, which is there already")
    arguments = parser.parse_args()
    if arguments.compare is not None:
        compare(arguments.output, arguments.compare)
        return
    boxes = make(arguments.output, arguments.seconds)
    print(f"{arguments.output}: {len(boxes)} frames, {sum(map(len, boxes)) / len(boxes):.1f} people in one")


if __name__ == "__main__":
    main()
