"""Options in a YAML file, `medrobust init`, --quiet, and help texts that name what the tables hold."""

from __future__ import annotations

import re

import pytest
import typer
import yaml

from medrobust.cli import app
from medrobust.cli.config_file import NOT_WRITTEN, command_options, expanded, template
from medrobust.errors import InputError

GROUP = typer.main.get_command(app)
COMMANDS = [n for n, command in GROUP.commands.items() if not hasattr(command, "commands") and n != "init"]


def from_file(tmp_path, text: str, *more: str, command: str = "audit") -> list[str]:
    path = tmp_path / "options.yaml"
    path.write_text(text)
    return expanded([command, str(path), *more], GROUP)


def test_a_file_stands_for_the_options_that_it_names(tmp_path):
    text = "command: audit\ndata: csv:labels.csv\nattacks: [fgsm, pgd]\nlimit: 8\nmap: {neg: normal, pos: ill}\n"
    text += "detect: false\nexplain: true\ntrust_code: false\nsize:\n"
    assert from_file(tmp_path, text, "--seed", "3") == [
        "audit",
        "--data=csv:labels.csv",
        "--attacks=fgsm,pgd",
        "--limit=8",
        "--map=neg=normal,pos=ill",
        "--no-detect",
        "--explain",
        "--seed",
        "3",
    ]


def test_a_value_that_looks_like_an_option_is_a_value(tmp_path):
    assert from_file(tmp_path, 'label: "--out"\n') == ["audit", "--label=--out"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("atacks: fgsm", "no option 'atacks'; did you mean attacks"),
        ("detect: 3", "detect is true or false, got 3"),
        ("limit: true", "limit takes a value"),
        ("json: true", "no option 'json'"),
        ("command: detect", "is for medrobust detect, not audit"),
        ("criteria: []", "criteria has no entry"),
        ("- audit", "must hold options"),
        ("a: [", "no readable YAML"),
        ("", "must hold options"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        from_file(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line():
    with pytest.raises(InputError, match=r"none\.yaml cannot be read"):
        expanded(["audit", "none.yaml"], GROUP)


@pytest.mark.parametrize("command", COMMANDS)
def test_init_writes_every_option_with_its_help_and_the_file_changes_nothing(command, tmp_path):
    options = command_options(GROUP.commands[command])
    text = template(command, options)
    assert yaml.safe_load(text) == {"command": command}
    for name in options.keys() - set(NOT_WRITTEN):
        assert re.search(rf"^# {re.escape(name)}:", text, re.M), name
    assert from_file(tmp_path, text, command=command) == [command]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_defaults_that_init_writes_can_be_given(command, tmp_path):
    """With every # before an option removed, the file is read, and each option gets its own default."""
    options = command_options(GROUP.commands[command])
    lines = template(command, options).splitlines()
    names = {f"# {name}:" for name in options}
    text = "\n".join(line[2:] if any(line.startswith(n) for n in names) else line for line in lines)
    words = from_file(tmp_path, text, command=command)[1:]
    given = {word.partition("=")[0].removeprefix("--"): word.partition("=")[2] for word in words if "=" in word}
    for name, value in given.items():
        assert value == str(options[name].default), name


def test_every_command_is_quiet_on_request():
    assert all("quiet" in command_options(GROUP.commands[name]) for name in COMMANDS)


TABLES = {
    ("detect", "detectors"): "medrobust.detectors:DETECTORS",
    ("evade", "detectors"): "medrobust.detectors:DETECTORS",
    ("evade", "evasions"): "medrobust.evasion:EVASIONS",
    ("universal", "method"): "medrobust.universal:UNIVERSAL",
    ("defend", "method"): "medrobust.universal:UNIVERSAL",
    ("harden", "method"): "medrobust.training:METHODS",
    ("input-defences", "defences"): "medrobust.defences:INPUT_DEFENCES",
    ("defend", "defence"): "medrobust.universal.defence:DEFENCES",
    ("search", "what"): "medrobust.training.evolved:QUESTIONS",
    ("search", "methods"): "medrobust.search:OPTIMISERS",
    ("explain", "measures"): "medrobust.explain:MEASURES",
    ("audit", "attacks"): "medrobust.attacks:ATTACKS",
    ("audit", "certify"): "medrobust.certified:METHODS",
    ("certify", "attacks"): "medrobust.attacks:ATTACKS",
    ("certify", "bounds"): "medrobust.certified:METHODS",
    ("attack", "attacks"): "medrobust.attacks:ATTACKS",
    ("detect", "attacks"): "medrobust.attacks:ATTACKS",
    ("evade", "attacks"): "medrobust.attacks:ATTACKS",
    ("explain", "attacks"): "medrobust.attacks:ATTACKS",
}
"""Options that take names of a table."""


@pytest.mark.parametrize(("command", "option"), TABLES)
def test_help_names_everything_that_a_table_holds(command, option):
    module, _, table = TABLES[command, option].partition(":")
    names = getattr(__import__(module, fromlist=[table]), table)
    text = command_options(GROUP.commands[command])[option].help
    missing = [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]
    assert not missing, f"medrobust {command} --{option} does not name {', '.join(missing)}"
