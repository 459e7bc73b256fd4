from fastapi.exceptions import RequestValidationError

from glomerulab.web.faults import problems_of


def test_the_first_problems_are_named_by_place_and_what_was_sent_is_not_repeated():
    problems = [
        {"loc": ("body", "slides", n), "msg": "is odd", "input": "<script>"} for n in range(9)
    ]
    said = problems_of(RequestValidationError(problems))
    assert said.startswith("slides.0: is odd; slides.1: is odd")
    assert said.count("is odd") == 5
    assert "<script>" not in said
