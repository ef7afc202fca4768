# SPDX-License-Identifier: MIT
"""Pictures as queries, as any viewer shows them."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from nervcodec.errors import ConfigError
from nervcodec.search.query import read_image

GOLDEN = "version3_pe.nerv"


@pytest.fixture
def photo():
    """32 x 48, another colour in each corner, so that no turn of it is the same."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    return pixels


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(photo, tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(photo).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    turned = {
        1: photo, 2: photo[:, ::-1], 3: photo[::-1, ::-1], 4: photo[::-1], 5: photo.transpose(1, 0, 2),
        6: np.rot90(photo, -1), 7: np.rot90(photo.transpose(1, 0, 2), 2), 8: np.rot90(photo),
    }[orientation]  # fmt: skip
    read = read_image(path)
    assert read.shape == turned.shape
    assert np.abs(read.astype(int) - turned)[4:-4, 4:-4].mean() < (12 if suffix == "jpg" else 0.5)
    assert read.flags.writeable  # or torch warns of it


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_become_eight(tmp_path, suffix):
    levels = np.linspace(0, 65_535, 60 * 40).round().astype(np.uint16).reshape(40, 60)
    Image.fromarray(levels).save(tmp_path / f"a.{suffix}")
    read = read_image(tmp_path / f"a.{suffix}")
    assert np.abs(read[..., 0] - levels / 257).max() <= 0.5
    assert (read[..., 0] == read[..., 2]).all()


def test_big_endian_grey(tmp_path):
    levels = np.array([[0, 257 * 7, 257 * 200, 65_535]], np.uint16)
    Image.frombytes("I;16B", (4, 1), levels.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, :, 1].tolist() == [0, 7, 200, 255]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.float32([[0, 0.5, 1]]), [0, 128, 255]),
        (np.float32([[0, 128, 255]]), [0, 128, 255]),
        (np.float32([[-1, 0, 1]]), [0, 128, 255]),
        (np.float32([[0, np.nan, 1]]), [0, 0, 255]),
        (np.int32([[0, 25_700, 65_535]]), [0, 100, 255]),
        (np.int32([[-100, 0, 100]]), [0, 128, 255]),
    ],
)
def test_wide_numbers(tmp_path, values, wanted):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == wanted


def test_what_is_transparent_is_white(photo, tmp_path):
    alpha = np.full((32, 48), 255, np.uint8)
    alpha[:16, :24], alpha[:16, 24:] = 0, 128
    Image.fromarray(np.dstack([photo, alpha])).save(tmp_path / "rgba.png")
    read = read_image(tmp_path / "rgba.png")
    assert read[4, 4].tolist() == [255, 255, 255]
    assert np.abs(read[4, 40].astype(int) - (142, 227, 142)).max() <= 1
    assert read[20, 4].tolist() == [30, 30, 200]
    Image.fromarray(alpha).convert("LA").save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png")[20, 4].tolist() == [255, 255, 255]
    Image.new("L", (4, 4), 9).save(tmp_path / "key.png", transparency=9)
    assert (read_image(tmp_path / "key.png") == 255).all()


@pytest.mark.parametrize("opacities", [bytes([0, 255]), 0])
def test_a_palette_with_transparency(tmp_path, opacities):
    image = Image.new("P", (8, 4))
    image.putpalette([250, 0, 0, 0, 0, 250])
    image.paste(1, (4, 0, 8, 4))
    image.save(tmp_path / "p.png", transparency=opacities)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_image(tmp_path / "p.png")
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[0, 7].tolist() == [0, 0, 250]


def test_inks_and_bits(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "ink.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "ink.jpg")[2, 2].astype(int) - (255, 0, 0)).max() < 8
    Image.new("1", (4, 4), 1).save(tmp_path / "bit.png")
    assert (read_image(tmp_path / "bit.png") == 255).all()


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_of_several(tmp_path, suffix):
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250)))
    red.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[blue])
    assert np.abs(read_image(tmp_path / f"a.{suffix}")[4, 4].astype(int) - (250, 0, 0)).max() < 8


def test_large_pictures_are_made_smaller(tmp_path):
    Image.new("L", (9000, 300), 77).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (137, 4096, 3)


def test_what_is_no_picture_is_refused(photo, tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    for cut in (0, 5, 20, 60, 400, 3000):
        path = tmp_path / f"{cut}.png"
        path.write_bytes(whole.read_bytes()[:cut])
        with pytest.raises(ConfigError, match=rf"{cut}\.png: is not an image that can be read"):
            read_image(path)
    Image.fromarray(photo).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:400])
    with pytest.raises(ConfigError, match="is not an image that can be read"):
        read_image(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", "", "none.png", "n" * 300):
        with pytest.raises(ConfigError, match="is not an image"):
            read_image(tmp_path / name)


def test_too_many_pixels_are_refused_and_many_are_not(tmp_path, monkeypatch):
    Image.new("L", (150, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    assert read_image(tmp_path / "a.png").shape == (100, 150, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)
    with pytest.raises(ConfigError, match="decompression bomb"):
        read_image(tmp_path / "a.png")


@pytest.mark.slow
def test_a_search_by_picture_says_nothing_on_stderr(run, photo, tmp_path, request):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif)
    result = run("search", "--image", "a.jpg", request.path.parents[1] / "golden" / GOLDEN, "-k", 1)
    assert result.returncode == 0
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1
