"""The class of all command groups: help texts in whole, and usage errors as sentences.

Typer shows the fragments of pydantic and types of Python, and cuts descriptions.
"""

# ruff: noqa: ANN401 - typer has no public types for contexts, parameters and errors of usage
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, cast, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from glomerulab.cli.remote import local_files
from glomerulab.runtime.messages import did_you_mean, problem_text

__all__ = ["CommandGroup"]

UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""Base of typer's errors of usage, which has no public name."""

METAVARS = {Path: "PATH", str: "TEXT", int: "INTEGER", float: "NUMBER"}
NOT_A_CHOICE = re.compile(r"'.*' is not one of (.*)\.", re.DOTALL)
RANGES = (
    (re.compile(r"(?<=[ \[])(\S+)<=x<=([^\s\];]+)"), r"\1 to \2"),
    (re.compile(r"\bx>=([^\s\];]+)"), r"at least \1"),
    (re.compile(r"\bx<=([^\s\];]+)"), r"at most \1"),
)


class CommandGroup(typer.Typer):
    """A group of commands; without one, it prints its help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            cls=_Group,
            no_args_is_help=True,
            add_completion=False,
            pretty_exceptions_enable=False,
            rich_markup_mode=None,  # importing rich would double the time --help takes
            **settings,
        )

    def command(  # type: ignore[override]
        self, name: str | None = None, **settings: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Add a command, as `typer.Typer.command` does."""
        return super().command(name, cls=_Command, **settings)


class _UsageSentence(typer.BadParameter):
    """An error of usage whose message is whole."""

    def format_message(self) -> str:
        return self.message


@contextmanager
def _sentences(ctx: Any) -> Iterator[None]:
    """Turn typer's errors of usage into sentences."""
    try:
        yield
    except _UsageSentence:
        raise
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        raise _UsageSentence(_sentence(error), ctx=getattr(error, "ctx", None) or ctx) from error


def _sentence(error: Any) -> str:
    """Return what is wrong with a command line: the option, the rule, the given value."""
    message: str = error.message
    parameter = getattr(error, "param", None)
    if parameter is not None:
        name = _name(parameter)
        if error.__cause__ is None:
            return f"{name} is missing: {parameter.help.rstrip('.')}"
        (problem, *_) = error.__cause__.errors()
        given = problem["input"]
        given = getattr(given, "value", given)
        choices = NOT_A_CHOICE.search(problem["msg"])
        if choices is not None:
            return f"{name} must be one of {choices[1]}, got {given!r}"
        return problem_text(problem, place=[name])
    if hasattr(error, "possibilities"):
        known = [
            one
            for command in [error.ctx.command]
            for param in command.params
            for one in (*param.opts, *param.secondary_opts)
        ]
        return f"there is no option {error.option_name!r}{did_you_mean(error.option_name, known)}"
    return _reworded(message, error)


def _reworded(message: str, error: Any) -> str:
    unknown = re.match(r"No such command '(.*?)'", message)
    if unknown is not None:
        similar = did_you_mean(unknown[1], error.ctx.command.commands)
        way_out = similar or f"; `{error.ctx.command_path} --help` lists the commands"
        return f"there is no command {unknown[1]!r}{way_out}"
    extra = re.match(r"Got unexpected extra argument\(?s?\)? \((.*)\)", message)
    if extra is not None:
        return f"unexpected argument {extra[1]!r}; put a path with blanks in quotes"
    without = re.match(r"Option '(.*?)' requires an argument", message)
    if without is not None:
        return f"{without[1]} needs a value"
    return message


def _command(ctx: Any) -> str:
    """Return the words of a command, without the program's."""
    return f"{_command(ctx.parent)} {ctx.info_name}".lstrip() if ctx.parent else ""


def _name(parameter: Any) -> str:
    """Return a parameter as its user types it: ``--mpp``, or ``SLIDES``."""
    is_option = parameter.param_type_name == "option"
    return str(parameter.opts[0] if is_option else parameter.name.upper())


class _Command(TyperCommand):
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.short_help = _first_sentence(self.help)
        for parameter in self.params:
            parameter.metavar = parameter.metavar or _metavar(parameter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _sentences(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _sentences(ctx), local_files(_command(ctx), ctx.params):
                return super().invoke(ctx)
        except KeyboardInterrupt:  # typer would end without a word
            typer.echo("glomerulab: interrupted; run the same command again to continue", err=True)
            raise typer.Exit(130) from None

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [one for one in self.get_params(ctx) if one.param_type_name == "argument"]
        return ["[OPTIONS]", *map(_usage, arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            rows = []
            for one in self.get_params(ctx):
                record = one.get_help_record(ctx)
                if one.param_type_name == kind and record is not None:
                    rows.append((one.metavar if kind == "argument" else record[0], record[1]))
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(name, _ranges(text)) for name, text in rows])


class _Group(TyperGroup):
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.short_help = _first_sentence(self.help)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _sentences(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _sentences(ctx):
            return super().invoke(ctx)


def _first_sentence(text: str | None) -> str:
    """Return the short description, which typer cuts unless it is given."""
    first = " ".join((text or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", first)[0]


def _metavar(parameter: Any) -> str | None:
    """Return a word for the value of a parameter, or its choices; None for a flag."""
    if parameter.param_type_name == "argument":
        return _name(parameter)
    annotation = parameter.type_descriptor.annotation
    inner = (*get_args(annotation), annotation)[0]
    if isinstance(inner, type) and issubclass(inner, Enum):
        return "|".join(str(choice.value) for choice in inner)
    return METAVARS.get(inner)


def _usage(argument: Any) -> str:
    name = argument.metavar if argument.required else f"[{argument.metavar}]"
    return name if argument.nargs == 1 else f"{name}..."


def _ranges(text: str) -> str:
    """Put typer's ranges in words."""
    for pattern, words in RANGES:
        text = pattern.sub(words, text)
    return text
