# SPDX-License-Identifier: MIT
"""Each option is stated once: the command line, the presets and the documentation are held to that statement."""

import re
import typing
from dataclasses import dataclass
from pathlib import Path

import click
import option_tables
import pytest
from click.testing import CliRunner

from nervcodec.cli.main import cli
from nervcodec.errors import ConfigError
from nervcodec.media.options import SourceOptions
from nervcodec.options import DEBUG_RUN, GROUP_OF, GROUPS, PRESETS, SECTIONS, BaseOptions, NetworkOptions, from_flat
from nervcodec.settings import Setting, convert, group_by_setting, join_names, settings_of
from nervcodec.training.config import FitConfig

GOLDEN = Path(__file__).parent / "golden" / "version3_pe.nerv"
SETTINGS = {name: setting for group in GROUPS for name, setting in settings_of(group).items()}
SHOWN = {name: setting for name, setting in SETTINGS.items() if setting.flag != ""}
OPTIONS = [param for param in cli.commands["encode"].params if isinstance(param, click.Option)]
# Inputs, who works on them, and what becomes of results.
OTHERS = {"output", "recursive", "workers", "ray", "force", "as_json", "quiet", "verbose", "debug"}


def words(text):
    return " ".join(text.split())


# ------------------------------------------------------------------ the command line


def test_every_setting_is_one_option_and_every_option_a_setting():
    assert sorted(option.name for option in OPTIONS) == sorted([*SHOWN, *OTHERS])
    flags = [flag for option in OPTIONS for flag in (*option.opts, *option.secondary_opts)]
    assert len(flags) == len(set(flags))
    assert SETTINGS.keys() - SHOWN.keys() == {"rounding_share"}
    assert {setting.section for setting in SETTINGS.values()} == set(SECTIONS)


@pytest.fixture(scope="module")
def shown():
    """What ``--help`` says of each option, by its flag."""
    text = CliRunner().invoke(cli, ["encode", "--help"]).output
    parts = re.split(r"^  (--[a-z-]+)\b", text, flags=re.M)
    return dict(zip(parts[1::2], map(words, parts[2::2]), strict=True))


@pytest.mark.parametrize("name", SHOWN)
def test_help_has_what_the_setting_says(name, shown):
    setting = SHOWN[name]
    line = shown[f"--{setting.flag or name.replace('_', '-')}"]
    assert words(setting.help)[1:] in line
    if setting.default_text:
        assert f"Default: {setting.default_text}." in line
    for choice in setting.choices if len(setting.choices) <= 3 else (*setting.choices[:3], setting.choices[-1]):
        assert choice in line
    for form in setting.forms:
        assert form in line
    for sign, bound in ((">=", setting.least), ("<=", setting.most), ("<", setting.below)):
        if bound is not None and setting.parse is None:
            assert f"{sign}{bound:g}" in line or (sign == ">=" and f"{bound:g}<=x" in line)
    if setting.above is not None and setting.parse is None:
        assert f"x>{setting.above:g}" in line or f"{setting.above:g}<x" in line
    assert not setting.network or f" {setting.network}: " in line


def test_nothing_is_given_unless_it_is(monkeypatch):
    """Defaults are the dataclasses' own, or a preset's would never count."""
    given = {}
    monkeypatch.setattr("nervcodec.encoding.encode", lambda *_, **settings: given.update(settings) or 1 / 0)
    CliRunner().invoke(cli, ["encode", str(GOLDEN)])
    assert {name for name, value in given.items() if value is not None} == {"observer", "force"}
    given.clear()
    CliRunner().invoke(cli, ["encode", str(GOLDEN), "--loss", "FUSION6", "--patches", "1x2", "--resume"])
    found = {name: value for name, value in given.items() if value not in (None, False)}
    assert (found["loss"], found["patches"], found["resume"]) == ("fusion6", (1, 2), True)


def wrong_texts():
    for name, setting in SHOWN.items():
        flag, texts = f"--{setting.flag or name.replace('_', '-')}", []
        hint = typing.get_type_hints(GROUP_OF[name])[name]
        if (
            setting.choices
            or setting.parse
            or (setting.check and setting.forms and name != "encoder")
            or hint in (int, float)
        ):
            texts.append("nonsense")
        texts += [str(setting.above)] if setting.above is not None else []
        texts += (
            [str(setting.least - 1)]
            if setting.least is not None and setting.separator == "_" and setting.parse is None
            else []
        )
        texts += [str(bound + 1) for bound in (setting.most, setting.below) if bound is not None]
        yield from ((flag, text) for text in texts)


@pytest.mark.parametrize(("flag", "text"), wrong_texts())
def test_a_wrong_value_is_wrong_usage_and_names_its_option(flag, text):
    result = CliRunner().invoke(cli, ["encode", str(GOLDEN), f"{flag}={text}"])
    assert result.exit_code == 2
    assert f"Invalid value for '{flag}'" in result.stderr


@pytest.mark.parametrize("command", ["decode", "search", "eval"])
def test_device_and_precision_are_the_same_everywhere(command):
    context = click.Context(cli.commands[command])
    params = {param.name: param for param in cli.commands[command].params}
    for name in ("device", "precision"):
        assert params[name].type.choices == SETTINGS[name].choices
        assert params[name].get_default(context) == SETTINGS[name].default


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize("name", SETTINGS)
def test_a_default_is_a_value_that_can_be_given(name):
    setting = SETTINGS[name]
    if setting.default is not None:
        assert setting.validated(name, convert(GROUP_OF[name], name, setting.default)) == setting.default
    if setting.parse is not None and setting.default is not None:
        assert setting.parse(setting.as_text(setting.default)) == setting.default
    assert setting.help.endswith(".")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_set_existing_options_to_valid_values(preset):
    for name, value in (*PRESETS[preset].items(), *DEBUG_RUN.items()):
        SETTINGS[name].validated(name, convert(GROUP_OF[name], name, value))
    expected = from_flat(preset=preset)
    for name, value in PRESETS[preset].items():
        part = {
            SourceOptions: expected.source,
            BaseOptions: expected.layer,
            NetworkOptions: expected.network,
            FitConfig: expected.fit,
        }
        assert getattr(part.get(GROUP_OF[name], expected), name) == convert(GROUP_OF[name], name, value)


def test_what_is_given_goes_before_a_preset_and_a_debug_run_before_all():
    expected = from_flat(preset="comparable", loss="l1", epochs=7)
    assert (expected.fit.loss, expected.fit.epochs, expected.fit.lr) == ("l1", 7, 0.001)
    assert from_flat(epochs=7, debug_run=True).fit.epochs == DEBUG_RUN["epochs"]


def test_a_name_of_two_groups_is_refused():
    @dataclass(frozen=True)
    class Other:
        seed: int = Setting(0, "Of something else.").field()

    with pytest.raises(TypeError, match="seed is a setting of both FitConfig and Other"):
        group_by_setting(*GROUPS, Other)
    assert group_by_setting(Other) == {"seed": Other}


@pytest.mark.parametrize(
    ("facts", "inside", "outside"),
    [
        ({"above": 0}, [0.1, 5, (1, 2)], [0, -1, (1, 0), float("nan"), float("inf")]),
        ({"least": 1}, [1, 9], [0, 0.9, float("nan"), float("inf")]),
        ({"above": 0, "below": 100}, [0.1, 99.9], [0, 100, float("nan")]),
        ({"least": 0, "most": 1}, [0, 1], [-0.1, 1.1, float("nan")]),
        ({"choices": ("one", "two")}, ["one", "TWO"], ["three", "", None, 1, ["one"]]),
    ],
    ids=str,
)
def test_bounds_and_choices(facts, inside, outside):
    setting = Setting(1, "A number.", **facts)
    for value in inside:
        assert setting.validated("it", value) == (value.lower() if isinstance(value, str) else value)
    for value in outside:
        with pytest.raises(ConfigError, match="^it must be|^unknown it"):
            setting.validated("it", value)


def test_settings_of_the_other_network_are_refused():
    of_one = {name: setting.network for name, setting in settings_of(NetworkOptions).items() if setting.network}
    assert set(of_one.values()) == {"grid", "pe"}
    for name, network in of_one.items():
        value = SETTINGS[name].default or 1
        embed = {"grid": "grid", "pe": "pe_1.25_80"}
        assert from_flat(embed=embed[network], **{name: value})
        (other,) = embed.keys() - {network}
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} has no effect with --embed {embed[other]}"):
            from_flat(embed=embed[other], **{name: value})


def test_numbered_names_are_listed_from_the_first_to_the_last():
    assert join_names(["l1", "l2", "log-l2", "fusion1", "fusion2", "fusion3"]) == "l1, l2, log-l2, fusion1 to fusion3"
    assert join_names(["a9", "a10", "a11", "b12", "a12"]) == "a9 to a11, b12, a12"
    assert join_names([]) == ""


# ------------------------------------------------------------------ the documentation


def test_the_documents_tables_are_up_to_date():
    text = option_tables.DOCUMENT.read_text()
    assert option_tables.written(text) == text, "run python tests/option_tables.py"
    assert all(f"`{name}`" in text or f"`--{name.replace('_', '-')}" in text for name in SETTINGS)
