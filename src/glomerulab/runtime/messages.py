"""Parts of messages: counted nouns, suggested names, and the problems that pydantic finds."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError  # types only: pydantic would slow `--help`

__all__ = ["count_noun", "did_you_mean", "first_problem", "problem_text"]

MAX_VALUE_LENGTH = 80

RULES = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "enum": "{expected}",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_type": "a whole number",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "path_type": "a path",
    "string_pattern_mismatch": "of the form {pattern}",
    "string_too_long": "at most {max_length} characters long",
    "string_too_short": "at least {min_length} characters long",
    "string_type": "a text",
    "too_long": "a list of at most {max_length} entries",
    "too_short": "a list of at least {min_length} entries",
    "tuple_type": "a list",
    "uuid_parsing": "a UUID",
}
"""What a value must be, by pydantic's type of the problem."""

LENGTH_PROBLEMS = {"too_long", "too_short", "string_too_long"}
TABLE_PROBLEMS = {"dict_type", "mapping_type", "model_attributes_type", "model_type"}
TAG_PROBLEMS = {"union_tag_invalid", "union_tag_not_found"}


def count_noun(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun; the plural is the singular with an s unless given.

    Examples
    --------
    >>> count_noun(1, "image"), count_noun(0, "glomerulus", "glomeruli")
    ('1 image', '0 glomeruli')
    """
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the similar ones, or nothing.

    Examples
    --------
    >>> did_you_mean("stian", ["stain", "mpp"]), did_you_mean("x", ["stain"])
    ("; did you mean 'stain'?", '')
    """
    similar = difflib.get_close_matches(name, list(known))
    return f"; did you mean {' or '.join(map(repr, similar))}?" if similar else ""


def first_problem(error: "ValidationError", model: "type[BaseModel] | None" = None) -> str:
    """Return the first problem of a file as a sentence with its key.

    With the model of the file, similar keys are suggested for an unknown one.
    """
    first = error.errors()[0]
    text = problem_text(first, place=first["loc"])
    if model is None or first["type"] != "extra_forbidden":
        return text
    known = tuple(_keys(model.model_json_schema()))
    key = ".".join(str(part) for part in first["loc"])
    elsewhere = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    if elsewhere:  # the right key in the wrong table
        return f"{text}; did you mean {' or '.join(map(repr, elsewhere))}?"
    return text + did_you_mean(key, known)


def _keys(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted keys of a model's JSON schema."""
    definitions = schema.get("$defs", {})

    def walk(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
        if "$ref" in node:
            node = definitions[node["$ref"].rpartition("/")[2]]
        for choice in (*node.get("anyOf", ()), *node.get("oneOf", ())):
            yield from walk(choice, prefix)
        for name, child in node.get("properties", {}).items():
            yield prefix + name
            yield from walk(child, f"{prefix}{name}.")

    yield from dict.fromkeys(walk(schema, ""))


def problem_text(
    problem: Mapping[str, Any],
    *,
    place: Sequence[object],
    whole: str = "the file",
    table: str = "a table of keys",
) -> str:
    """Return a problem that pydantic found as a sentence.

    Parameters
    ----------
    problem : mapping
        One of ``ValidationError.errors()``.
    place : sequence
        Keys that lead to the value.
    whole : str
        Subject of a problem without a place.
    table : str
        What a value with keys is called.
    """
    kind, given, context = problem["type"], problem.get("input"), problem.get("ctx", {})
    key = ".".join(str(part) for part in place)
    subject = key or whole
    if kind in TAG_PROBLEMS:
        subject = f"{subject}.{str(context['discriminator']).strip(chr(39))}"
    rule = _rule(problem, table)
    if kind == "extra_forbidden":
        return f"unknown key {key!r}"
    if kind in {"missing", "union_tag_not_found"}:
        return f"{subject} is missing"
    if rule is not None:
        return f"{subject} {rule}"
    # A rule over several keys is a sentence with its own subject, and its input is the whole table.
    text = str(context.get("error") or problem["msg"])
    return f"{key}: {text}{_got(given, text)}" if key else text


def _rule(problem: Mapping[str, Any], table: str) -> str | None:
    """Return "must be ..., got ..."; None for a rule that has its own sentence."""
    kind, given, context = problem["type"], problem.get("input"), problem.get("ctx", {})
    if kind == "union_tag_invalid":
        return f"must be one of {context['expected_tags']}, got {context['tag']!r}"
    if kind in TABLE_PROBLEMS:
        return f"must be {table}{_got(given)}"
    if kind in RULES:
        shown = "" if kind in LENGTH_PROBLEMS else _got(given)
        # 100 rather than 100.0
        limits = {
            name: f"{one:.12g}" if isinstance(one, float) else one for name, one in context.items()
        }
        return f"must be {RULES[kind].format(**limits)}{shown}"
    text = str(context.get("error") or problem["msg"])
    return f"{text}{_got(given, text)}" if text.startswith("must ") else None


def _got(given: object, text: str = "") -> str:
    """Return the end of a message that shows the given value, if it is short and not shown yet."""
    shown = f"<{len(given)} bytes>" if isinstance(given, bytes) else repr(given)
    if isinstance(given, Mapping) or len(shown) > MAX_VALUE_LENGTH or shown in text:
        return ""
    return f", got {shown}"
