# SPDX-License-Identifier: MIT
"""Standard streams of the commands, and how messages quote arguments."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from nervcodec.errors import ConfigError
from nervcodec.search.query import parse_query

NERV = str(Path(sys.executable).with_name("nervcodec"))
GOLDEN = Path(__file__).parents[1] / "golden" / "version3_pe.nerv"
FULL = Path("/dev/full")
SEARCH = ["search", "a man", GOLDEN, "--min-score", "-2", "-k", "3"]
REPORTS = {
    "info --json": ["info", GOLDEN, "--json"],
    "verify": ["verify", GOLDEN],
    "presets": ["presets"],
    "search": SEARCH,
    "help": ["info", "--help"],
    "version": ["--version"],
}


def start(arguments, tmp_path, **streams):
    env = {**os.environ, "PYTHONIOENCODING": streams.pop("encoding", "utf-8")}
    return subprocess.run([NERV, *map(str, arguments)], cwd=tmp_path, env=env, text=True, timeout=300, **streams)


@pytest.mark.skipif(not FULL.exists(), reason="no device here that is always full")
@pytest.mark.parametrize("name", REPORTS)
def test_a_full_device_is_a_one_line_error(name, tmp_path):
    with FULL.open("w") as full:
        result = start(REPORTS[name], tmp_path, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    remarks = [line for line in result.stderr.splitlines() if not line.startswith("nervcodec: parameters")]
    assert remarks == ["nervcodec: standard output: cannot be written (No space left on device)"]


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="no device here that is always full")
def test_a_full_device_after_a_fit_is_a_one_line_error(carphone, tmp_path):
    arguments = ["encode", carphone, "-o", "a.nerv", "--duration", "0.2s", "--epochs", 1, "--encoder", "none", "--json"]
    with FULL.open("w") as full:
        result = start([*arguments, "-q"], tmp_path, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert result.stderr == "nervcodec: standard output: cannot be written (No space left on device)\n"
    assert (tmp_path / "a.nerv").exists()


@pytest.mark.slow
def test_a_poor_fit_is_advised_to_use_a_base_layer_unless_quiet(carphone, run):
    arguments = ["encode", carphone, "-o", "a.nerv", "--duration", "0.1s", "--encoder", "none", "--force"]
    alone = [*arguments, "--epochs", 1]
    assert "dB: on footage --base av1 gives far more in the same bytes\n" in run(*alone).stderr
    assert run(*alone, "-q").stderr == ""
    layered = run(*arguments, "--base", "av1", "--crf", 70)
    assert layered.returncode == 0
    assert "gives far more" not in layered.stderr


@pytest.mark.parametrize("name", REPORTS)
def test_a_closed_pipe_is_silent(name, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    result = start(REPORTS[name], tmp_path, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    remarks = [line for line in result.stderr.splitlines() if not line.startswith("nervcodec: parameters")]
    assert remarks == []
    assert result.returncode == (1 if name == "version" else 141)  # click's own status before any command


@pytest.mark.slow
def test_a_closed_stderr_does_not_stop_the_work(carphone, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ["encode", carphone, "-o", "a.nerv", "--duration", "0.2s", "--epochs", 1, "--encoder", "none"]
    result = start(arguments, tmp_path, stderr=writer, stdout=subprocess.PIPE)
    os.close(writer)
    assert result.returncode == 0
    assert result.stdout.startswith("file\ta.nerv\n")


def test_closed_standard_streams_are_not_reused_by_files(tmp_path):
    for closed in (">&-", "2>&-", ">&- 2>&- <&-"):
        command = f'"{NERV}" info "{GOLDEN}" {closed}'
        result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0
        assert result.stderr == ""


@pytest.mark.slow
def test_a_terminal_without_block_characters_gets_ascii_bars(tmp_path):
    for encoding, expected, other in (("ascii:strict", "#", "█"), ("utf-8:strict", "█", "#")):
        ours, theirs = pty.openpty()
        result = start(SEARCH, tmp_path, stdout=theirs, stderr=subprocess.PIPE, encoding=encoding)
        os.close(theirs)
        output = b""
        try:
            while more := os.read(ours, 65536):
                output += more
        except OSError:  # Linux's way to say that the other end is closed
            os.close(ours)
        assert (result.returncode, result.stderr) == (0, "")
        assert expected in output.decode()
        assert other not in output.decode()


# ------------------------------------------------------------------ echo


@pytest.mark.slow
def test_a_long_query_is_shortened_in_messages(run):
    result = run("search", "word " * 3000, GOLDEN, "--min-score", 2)
    assert result.returncode == 0
    assert result.stderr.startswith('nervcodec: nothing certain for "word word')
    assert len(result.stderr) < 130 + len(str(GOLDEN))
    assert result.stderr.count("\n") == 1
    broken = run("search", "a\nman\x1b[31m\u202e", "+", "b\tc", GOLDEN, "--min-score", 2)
    assert broken.stderr.startswith(r'nervcodec: nothing certain for "a\nman\x1b[31m\u202e + b\tc"; nearest: ')
    assert broken.stderr.count("\n") == 1


def test_queries_in_messages():
    query, _ = parse_query(["x" * 500, "-", "y\n" * 500], None)
    assert len(str(query)) == 70
    assert str(query).startswith("xxx")
    assert str(query).endswith(r"y\ny\ny")
    assert query.terms[0].text == "x" * 500  # what is looked for is not cut
    with pytest.raises(ConfigError, match=r"not valid UTF-8: caf\\xe9"):
        parse_query(["caf\udce9"], None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "a", "b" * 24_000],
        ["search", "a", "b\n" * 9_000],
        ["info", "b" * 24_000],
        ["b" * 24_000],
        ["presets", "--" + "b" * 24_000],
        ["encode", GOLDEN, "--time", "b\t" * 9_000],
        ["encode", GOLDEN, "--loss", "b" * 24_000],
        ["encode", GOLDEN, "--preset", "b" * 24_000],
        ["encode", GOLDEN, "--encoder", "b" * 24_000],
        ["decode", GOLDEN, "--patch", "b" * 24_000],
        ["eval", GOLDEN, GOLDEN, "--against", "b\n" * 9_000],
    ],
    ids=lambda arguments: "-".join(map(str, arguments))[-20:],
)
def test_arguments_are_shortened_and_escaped_in_messages(run, arguments):
    result = run(*arguments)
    assert result.returncode in (1, 2)
    lines = result.stderr.splitlines()
    assert len([line for line in lines if line and not line.startswith(("Usage: ", "Try "))]) == 1
    assert max(map(len, lines)) < 520
    assert "internal error" not in result.stderr


def test_json_on_stdout_is_one_document(run):
    assert json.loads(run("info", GOLDEN, "--json", PYTHONIOENCODING="ascii:strict").stdout)["bytes"] > 0


@pytest.mark.parametrize("words", [("decode", "--scale"), ("search", "suit", "--min-score"), ("encode", "--lr")])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_must_be_finite(run, small_nerv, words, value):
    command, *rest = words
    result = run(command, *rest[:-1], small_nerv, rest[-1], value)
    assert result.returncode == 2
    assert "finite" in result.stderr or "range" in result.stderr
