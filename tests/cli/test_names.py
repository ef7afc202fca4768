# SPDX-License-Identifier: MIT
"""Names that are long, no UTF-8, or full of control characters; one file in several guises."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from containers import everything, write
from hypothesis import given
from hypothesis import strategies as st

import nervcodec
from nervcodec.cli.output import one_line
from nervcodec.errors import ConfigError, ContainerError
from nervcodec.formats import container
from nervcodec.formats.atomic import replacing
from nervcodec.formats.container import Container
from nervcodec.formats.text import NAME_BYTES, escape, shorten, truncate_name
from nervcodec.outputs import require_folder, require_free
from nervcodec.search.files import find_containers
from nervcodec.search.moments import Moment
from nervcodec.search.render import clip_name
from nervcodec.training.checkpoint import Checkpoint

GOLDEN = Path(__file__).parents[1] / "golden" / "version3_grid.nerv"
TINY = ["--duration", "0.2s", "--epochs", "1", "--encoder", "none", "--scale", "0.25"]
STRICT = {"PYTHONIOENCODING": "utf-8:strict"}
ODD = os.fsdecode(b"b\xffad\tna\nme\x1b[31m\xe2\x80\xae.nerv")
ODD_SHOWN = r"b\xffad\tna\nme\x1b[31m\u202e.nerv"
LONG = ["a" * 246, "a" * 251, "映" * 82, "é" * 125, os.fsdecode(b"\xff" * 250)]


# ------------------------------------------------------------------ one function for each


def test_names_are_shown_on_one_line():
    assert escape(ODD) == ODD_SHOWN
    assert escape("Küche 映画　1\u202fPM \u200d.mp4") == "Küche 映画　1\u202fPM \u200d.mp4"
    assert escape("\x7f\x9b\u2028\U000e0001\ud800\r") == r"\x7f\x9b\u2028\U000e0001\ud800\r"


@given(st.text(st.characters(codec=None)), st.integers(10, 100))
def test_messages_are_one_printable_line(text, length):
    assert len(escape(text).splitlines()) <= 1
    assert "\t" not in escape(text)
    assert escape(text).encode().decode() == escape(text)
    assert len(shorten(text, length)) <= length


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(12, 255))
def test_long_names_are_truncated_to_the_limit_of_the_file_system(stem, limit):
    name = truncate_name(stem, ".nerv", limit)
    assert len(os.fsencode(name)) <= limit
    assert name.endswith(".nerv")
    remainder = name.removesuffix(".nerv")
    assert stem.startswith(remainder)
    if remainder != stem:
        assert len(os.fsencode(stem[: len(remainder) + 1] + ".nerv")) > limit


def test_messages_are_shortened_in_the_middle():
    assert one_line(f"'{'x' * 24_000}' does not exist") == f"'{'x' * 79}…{'x' * 40}' does not exist"
    assert len(one_line("word " * 3000)) == 500
    assert one_line(f"{'n' * 255}: cannot be read").endswith("nnn: cannot be read")


# ------------------------------------------------------------------ long names


@pytest.mark.parametrize("stem", LONG, ids=range(len(LONG)))
def test_outputs_derived_from_a_long_name_can_be_written(stem, tmp_path):
    for suffix in (".nerv", ".mp4", "." + "x" * 200):
        target = tmp_path / truncate_name(stem, suffix)
        with replacing(target) as temporary:
            assert len(os.fsencode(temporary.name)) <= NAME_BYTES
            temporary.write_text("x")
        assert target.read_text() == "x"
    clock = iter([0, 99, 99]).__next__
    checkpoint = Checkpoint(tmp_path / truncate_name(stem, ".nerv"), "", pytest.fail, clock=clock)
    assert checkpoint.save_if_due(dict)
    assert checkpoint.path.name.endswith(".resume")
    checkpoint.remove()
    name = clip_name(
        12, Moment(0, Path(truncate_name(stem, ".nerv")), 0, 1, 1_000_000, 2_000_000, 0, (0, 0), (0, 0, 1, 1))
    )
    (tmp_path / name).write_text("x")


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["a" * 246, "映" * 82], ids=["letters", "CJK"])
def test_long_names_are_encoded(run, carphone, tmp_path, stem):
    shutil.copy(carphone, tmp_path / f"{stem}.mp4")
    result = run("encode", f"{stem}.mp4", *TINY)
    assert result.returncode == 0, result.stderr
    (name,) = [p.name for p in tmp_path.iterdir() if p.suffix != ".mp4"]
    assert name == f"{stem}.nerv"
    assert container.read_header(tmp_path / name).video.source_name == f"{stem}.mp4"


def test_an_impossible_output_is_refused_before_any_work(run, carphone, tmp_path):
    result = run("encode", carphone, "-o", f"{'z' * 300}.nerv")
    assert result.returncode == 1
    assert result.stderr == f"nervcodec: {'z' * 300}.nerv: cannot be written: File name too long\n"
    for output in (["--sheet", "z" * 300], ["--clips", "z" * 300]):
        result = run("search", "sink", GOLDEN, *output)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.endswith("cannot be written: File name too long\n")
    for wrong in (tmp_path / ("z" * 300), tmp_path / "a\0b"):
        with pytest.raises(ConfigError, match="cannot be written"):
            require_free(wrong, False)
        with pytest.raises(ConfigError, match="cannot be written"):
            require_folder(wrong)
        with pytest.raises(ContainerError, match="cannot be read"):
            Container.open(wrong)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        require_folder(tmp_path / "file")
    require_folder(tmp_path / "not yet" / "there")


@pytest.mark.parametrize("command", ["info", "verify", "decode", "encode", "search", "eval"])
def test_inputs_with_impossible_names_are_one_error(run, command):
    words = ["sink"] if command == "search" else []
    result = run(command, *words, "z" * 24_000)
    assert result.returncode in (1, 2)
    assert "internal error" not in result.stderr
    assert max(map(len, result.stderr.splitlines())) <= 520


@pytest.mark.slow
def test_an_untrusted_source_name_is_not_followed(run, tmp_path):
    header, arrays = everything(GOLDEN)
    for name in ("n" * 1000, "", ".."):
        write(tmp_path / "a.nerv", replace(header, video=replace(header.video, source_name=name)), arrays)
        result = run("eval", "a.nerv")
        assert result.returncode in (1, 2)
        assert "internal error" not in result.stderr


# ------------------------------------------------------------------ odd names


@pytest.mark.slow
def test_odd_names_in_every_command(run, tmp_path):
    shutil.copy(GOLDEN, tmp_path / ODD)
    verified = run("verify", ODD, **STRICT)
    assert verified.stdout == f"{ODD_SHOWN}: whole (1 tensor, 15 frames)\n"
    for encoding in ("utf-8:strict", "ascii:strict"):
        searched = run("search", "a man", "--min-score", -2, "-k", 2, PYTHONIOENCODING=encoding)
        assert searched.returncode == 0, searched.stderr
        for line in searched.stdout.splitlines():
            assert len(line.split("\t")) == 6
            assert line.split("\t")[1] == ODD_SHOWN
        rows = json.loads(
            run("search", "a man", "--json", "--min-score", -2, "-k", 2, PYTHONIOENCODING=encoding).stdout
        )
        assert {row["file"] for row in rows} == {ODD}
    clips = run("search", "a man", "--min-score", -2, "-k", 1, "--clips", "clips", "--sheet", "a.png", **STRICT)
    assert clips.returncode == 0, clips.stderr
    (tmp_path / ODD).write_bytes(GOLDEN.read_bytes()[:-1])
    for command in (["info"], ["verify"], ["search", "sink"]):
        broken = run(*command, ODD, **STRICT)
        assert broken.returncode == 1
        assert len(broken.stderr.splitlines()) == 1
        assert broken.stderr.startswith(f"nervcodec: {ODD_SHOWN}: damaged")


@pytest.mark.slow
def test_odd_names_are_encoded_and_reported(run, carphone, tmp_path):
    name = os.fsdecode(b"x\xff\ny.mp4")
    shutil.copy(carphone, tmp_path / name)
    result = run("encode", name, *TINY, "--json", **STRICT)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["file"] == os.fsdecode(b"x\xff\ny.nerv")
    assert (tmp_path / report["file"]).exists()
    assert container.read_header(tmp_path / report["file"]).video.source_name == "x__y.mp4"
    table = run("encode", name, *TINY, "--force", **STRICT)
    assert table.stdout.splitlines()[0] == "file\tx\\xff\\ny.nerv"
    again = run("encode", name, *TINY, PYTHONIOENCODING="ascii:strict")
    assert again.stderr == "nervcodec: x\\xff\\ny.nerv: exists already; use --force to overwrite it\n"


@pytest.mark.slow
def test_json_keeps_letters_where_they_can_be_printed(run, tmp_path):
    shutil.copy(GOLDEN, tmp_path / "映é.nerv")
    words = ["search", "a man", "--json", "--min-score", -2, "-k", 1]
    assert '"file": "映é.nerv"' in run(*words).stdout
    assert r'"file": "\u6620\u00e9.nerv"' in run(*words, PYTHONIOENCODING="ascii:strict").stdout


def test_an_encoder_name_that_no_header_can_hold_is_refused_before_any_work(carphone, tmp_path):
    for name in ("openclip:ViT-B-32=a\nb.pt", "openclip:" + os.fsdecode(b"\xff.pt"), "x" * 2000):
        with pytest.raises(ConfigError, match="cannot record"):
            nervcodec.encode(carphone, tmp_path / "a.nerv", encoder=name)


# ------------------------------------------------------------------ one file is one file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: containers, a hard link, links to files, folders and themselves, hidden ones, a pipe, and
    deleted ones.
    """
    for folder in ("deep", ".cache", "#recycle", "deep/$RECYCLE.BIN"):
        (tmp_path / folder).mkdir()
    deleted = "#recycle/e.nerv", "deep/$RECYCLE.BIN/f.nerv"
    for name in ("a.nerv", "deep/b.nerv", "._a.nerv", ".cache/c.nerv", "deep/.d.nerv", *deleted):
        (tmp_path / name).write_text("x")
    (tmp_path / "hard.nerv").hardlink_to(tmp_path / "a.nerv")
    (tmp_path / "link.nerv").symlink_to("deep/b.nerv")
    (tmp_path / "deep" / "round").symlink_to("..")
    (tmp_path / "loop.nerv").symlink_to("loop.nerv")
    (tmp_path / "gone.nerv").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.nerv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["a.nerv", "deep/b.nerv"]),
        ([".", "."], ["a.nerv", "deep/b.nerv"]),
        (["deep", "link.nerv"], ["deep/b.nerv"]),
        (["link.nerv", "deep"], ["link.nerv"]),
        (["./a.nerv", "a.nerv", "deep/../a.nerv"], ["a.nerv"]),
        (["deep/round/a.nerv", "."], ["deep/round/a.nerv", "deep/b.nerv"]),
        (["hard.nerv", "a.nerv"], ["hard.nerv"]),
        (["._a.nerv", ".cache"], ["._a.nerv", ".cache/c.nerv"]),
        (["#recycle"], ["#recycle/e.nerv"]),
        (["pipe.nerv"], ["pipe.nerv"]),
    ],
)
def test_one_file_is_searched_once(folder, words, expected):
    assert [str(p) for p in find_containers(words)] == expected
    absolute = [str(folder / word) for word in words]
    assert [str(p) for p in find_containers([*words, *absolute])] == expected


def test_pipes_and_devices_do_not_hang(run, folder):
    result = run("search", "--", "-sink", "pipe.nerv")
    assert result.returncode == 1
    assert result.stderr.startswith("nervcodec: pipe.nerv: not a .nerv file but a folder, pipe or device")
    for command in ("info", "verify"):
        assert "pipe or device" in run(command, "pipe.nerv").stderr
    for path in ("/dev/zero", "pipe.nerv", "deep"):
        for read in (Container.open, container.read_header, container.fingerprint):
            with pytest.raises(ContainerError, match="pipe or device"):
                read(Path(path))
