# SPDX-License-Identifier: MIT
"""What search prints, draws and refuses, by the real entry point."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nervcodec
from nervcodec.errors import ContainerError
from nervcodec.media.source import scan

WRONG = Path(__file__).parents[1] / "golden" / "version3_shared.nerv"  # 16 numbers in its embeddings


def test_search_json(run, small_nerv):
    result = run("search", "a bicycle", small_nerv, "--json", "-k", 3, "--min-score", -1)
    assert result.returncode == 0, result.stderr
    results = json.loads(result.stdout)
    assert 1 <= len(results) <= 3
    for row in results:
        assert set(row) == {"score", "file", "start", "end", "frame", "patch", "box", "also_in"}
        assert row["file"] == str(small_nerv)
        assert 0 <= row["start"] < row["end"] <= 2.0
        assert len(row["patch"]) == 2
        x, y, w, h = row["box"]
        assert x + w <= 320
        assert y + h <= 136


@pytest.mark.slow
def test_search_below_the_current_folder(run, small_nerv, tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "one.nerv").write_bytes(small_nerv.read_bytes())
    (tmp_path / "two.nerv").write_bytes(small_nerv.read_bytes())
    (tmp_path / "broken.nerv").write_bytes(small_nerv.read_bytes()[:5000])
    result = run("search", "sink", "--min-score", -1)
    assert result.returncode == 0
    assert {(line.split("\t")[1], line.split("\t")[6]) for line in result.stdout.splitlines()} == {
        ("a/b/one.nerv", "also in two.nerv")
    }
    every = run("search", "sink", "--min-score", -1, "--all")
    assert {line.split("\t")[1] for line in every.stdout.splitlines()} == {"a/b/one.nerv", "two.nerv"}
    assert result.stderr.count("broken.nerv") == 1
    assert run("search", "sink", "two.nerv", "--min-score", 2).stdout == ""


def test_embeddings_of_another_dimension_are_an_error(run, small_nerv):
    result = run("search", "car", WRONG)
    assert result.returncode == 1
    assert "its embeddings have 16 numbers, those of the offline encoder 384" in result.stderr
    result = run("search", "car", WRONG, small_nerv, "--min-score", -1)
    assert result.returncode == 0
    assert f"skipped: {WRONG}: its embeddings" in result.stderr
    with nervcodec.open(WRONG) as video, pytest.raises(ContainerError, match="have 16 numbers"):
        video.search("car")


def test_search_without_a_container(run, tmp_path):
    result = run("search", "sink")
    assert result.returncode == 1
    assert "no .nerv file below the current folder" in result.stderr
    assert run("search", " ").returncode == 2


@pytest.mark.slow
def test_search_by_image_and_by_patch(run, small_nerv, tmp_path):
    Image.fromarray(nervcodec.open(small_nerv)[30]).save(tmp_path / "like.png")
    result = run("search", "--image", "like.png", small_nerv, "--json", "--per-patch", "-k", 4)
    assert len(json.loads(result.stdout)) == 4
    assert run("search", "--image", "none.png", small_nerv).returncode == 2
    (tmp_path / "no.png").write_text("x")
    result = run("search", "--image", "no.png", small_nerv)
    assert result.returncode == 1
    assert "no.png: is not an image" in result.stderr


@pytest.mark.slow
def test_a_query_without_a_match_is_reported(run, small_nerv):
    result = run("search", "a giraffe in a swimming pool", small_nerv)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert f'nothing certain for "a giraffe in a swimming pool"; nearest: {small_nerv} 0:0' in result.stderr
    assert json.loads(run("search", "a giraffe in a swimming pool", small_nerv, "--json").stdout) == []
    assert run("search", "a giraffe in a swimming pool", small_nerv, "--min-score", -2, "-k", 2).stdout


@pytest.mark.slow
def test_queries_are_added_and_subtracted(run, small_nerv):
    alone, both, less = (
        json.loads(run("search", *words, small_nerv, "--json", "--per-patch", "-k", 400).stdout)
        for words in (["a car"], ["a car", "+", "a bicycle"], ["a car", "-", "a bicycle"])
    )
    assert len(alone) == len(both) == len(less) == 400
    order = [[(row["frame"], *row["patch"]) for row in rows] for rows in (alone, both, less)]
    assert order[0] != order[1] != order[2]
    assert run("search", "a car", "+").returncode == 2
    cancelled = run("search", "a car", "-", "a car", small_nerv)
    assert cancelled.returncode == 1
    assert "cancel each other out" in cancelled.stderr


def test_a_negation_is_noted(run, small_nerv):
    result = run("search", "a street without any bicycles", small_nerv, "--min-score", 2)
    assert 'no encoder understands "without"; subtract what should not be there: - bicycle\n' in result.stderr
    assert "no encoder" not in run("search", "notebook", small_nerv, "--min-score", 2).stderr


def test_a_missing_file_is_a_usage_error(run, small_nerv):
    result = run("search", "a", "red", "car", small_nerv)
    assert result.returncode == 2
    assert "quotation marks" in result.stderr


@pytest.mark.slow
def test_search_draws_a_sheet_and_clips(run, small_nerv, tmp_path):
    arguments = ["search", "a bicycle", small_nerv, "--min-score", -1, "-k", 3]
    result = run(*arguments, "--sheet", "sheet.png", "--clips", "clips")
    assert result.returncode == 0, result.stderr
    results = json.loads(run(*arguments, "--json").stdout)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 300 * len(results)
        red = np.asarray(sheet.convert("RGB")).astype(int)
    assert ((red[..., 0] > 200) & (red[..., 1] < 110)).sum() > 300  # outlines
    clips = sorted((tmp_path / "clips").iterdir())
    assert len(clips) == len(results)
    for clip, row in zip(clips, results, strict=True):
        assert scan(clip).frame_count == round((row["end"] - row["start"]) * 25)
    again = run(*arguments, "--sheet", "sheet.png")
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert run(*arguments, "--clips", "clips").returncode == 1
    assert run(*arguments, "--sheet", "sheet.png", "--clips", "clips", "--force").returncode == 0


def test_a_path_after_a_sign_is_noted(run, small_nerv):
    result = run("search", "car", "-", small_nerv, small_nerv)
    assert result.returncode == 0
    assert "is a text to search for" in result.stderr
