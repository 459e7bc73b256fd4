import ast
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import glomerulab.cli
from glomerulab.cli.app import CommandGroup
from glomerulab.cli.main import app
from glomerulab.cli.options import StainOption
from glomerulab.cohort.schema import STAINS

ROOT = typer.main.get_command(app)
FOLDER = Path(glomerulab.cli.__file__).parent


def _leaves(command=ROOT, path=()):
    children = getattr(command, "commands", None)
    if children is None:
        return [(path, command)]
    return [leaf for name, child in children.items() for leaf in _leaves(child, (*path, name))]


LEAVES = _leaves()


def _stderr(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("split x.csv --out y --by slide", ["--by", "'patient', 'image'", "got 'slide'"]),
        ("split x.csv --out y --folds 1.5", ["--folds must be a whole number", "got '1.5'"]),
        ("split x.csv --out y --folds 1", ["--folds must be at least 2", "got '1'"]),
        ("split x.csv --out y --ratios 6:2", ["--ratios must be three", "got '6:2'"]),
        ("split x.csv --out y --ratios 0:1:1", ["--ratios must be above 0", "got '0:1:1'"]),
        ("split x.csv --out y --ratios nan:1:1", ["--ratios must be above 0", "got 'nan:1:1'"]),
        ("extract x --regions r --out y --mpp abc", ["--mpp must be a number", "got 'abc'"]),
        ("extract x --regions r --out y --mpp 1000", ["--mpp must be at most 100,", "got '1000'"]),
        ("extract x --regions r", ["--out is missing"]),
        ("extract", ["SLIDES is missing"]),
        ("extract x --regions", ["--regions needs a value"]),
        ("extract x y --regions r --out o", ["unexpected argument 'y'"]),
        ("extract x --region r --out o", ["no option '--region'", "did you mean '--regions'"]),
        ("extracd", ["no command 'extracd'", "did you mean 'extract'"]),
        ("xyzzy", ["no command 'xyzzy'", "--help"]),
        ("annotate foo", ["no command 'foo'", "--help"]),
        ("serve --model r --port 99999", ["--port must be at most 65535", "got '99999'"]),
        ("predict s --model m --out o --stain foo", ["--stain", "'H-DAB'", "got 'foo'"]),
        ("report p --language fr", ["--language", "'en', 'zh'", "got 'fr'"]),
        ("report p --format docx,html", ["--format must be", "dicom-sr", "got 'docx'"]),
        ("report p --format ,", ["--format must be", "got nothing"]),
        ("override p i --labels x", ["--by, --reason must be given"]),
        ("override p i --from f", ["--from takes no IMAGE"]),
        ("normalize m.csv --out o", ["no target is given", "--target-pas"]),
        ("normalize m.csv --out o --target HE", ["--target must be STAIN=FILE", "got 'HE'"]),
        ("normalize m.csv --out o --target-he f --white 300,1,1", ["--white", "got '300,1,1'"]),
        ("evaluate a b --on m.csv", ["--on", "one run"]),
        ("evaluate a --out b", ["--out", "comparison"]),
        ("evaluate a --on m.csv --tables-only", ["--on needs", "leave out --tables-only"]),
    ],
)
def test_a_usage_error_is_a_sentence_with_option_rule_and_value(arguments, parts):
    line = _stderr(*arguments.split(" "))
    assert [part for part in parts if part not in line] == []
    assert "Invalid value" not in line
    assert "Input should" not in line


def test_the_stains_of_the_option_are_those_of_manifests():
    assert tuple(StainOption) == STAINS


NUMBERS = [
    (path, one)
    for path, command in LEAVES
    for one in command.params
    if one.type_descriptor.annotation in {int, float} and one.param_type_name == "option"
]


@pytest.mark.parametrize(("path", "option"), NUMBERS, ids=lambda one: getattr(one, "name", None))
def test_every_number_option_names_itself_and_the_wrong_value(path, option):
    needed = [
        word
        for one in dict(LEAVES)[path].params
        if one.required and one is not option
        for word in ((one.opts[0], "1") if one.param_type_name == "option" else ("1",))
    ]
    line = _stderr(*path, *needed, option.opts[0], "many")
    assert f"{option.opts[0]} must be a" in line
    assert "got 'many'" in line


def test_no_command_words_a_usage_error_in_fragments():
    """`param_hint` would put "Invalid value for" before a message."""
    calls = [
        node
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "BadParameter"
    ]
    assert calls
    assert [one.lineno for one in calls if one.keywords or len(one.args) != 1] == []


@pytest.mark.parametrize("path", [(), ("slide",), ("manifest",), ("annotate",)])
def test_no_description_is_cut(path):
    done = CliRunner().invoke(app, [*path, "--help"], terminal_width=80)
    assert "..." not in done.output.split("Commands:")[1]


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=["-".join(path) for path, _ in LEAVES])
def test_every_help_has_words_for_values(path, command):
    text = CliRunner().invoke(app, [*path, "--help"]).output
    assert (
        re.findall(r"<(?:path|str|int|float|list)\b|^Usage.*\{|list\[|\bx[<>]=|<=x|\.\.\.$", text)
        == []
    )
    assert command.short_help.endswith(".")


def test_an_interrupted_command_tells_how_to_go_on() -> None:
    group = CommandGroup()

    @group.command()
    def long() -> None:
        raise KeyboardInterrupt

    group.callback()(lambda: None)
    done = CliRunner().invoke(group, ["long"])
    assert done.exit_code == 130
    assert "interrupted" in done.stderr
    assert "again" in done.stderr
