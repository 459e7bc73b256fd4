import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from glomerulab.runtime.messages import count_noun, first_problem


class Layer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int


class Network(BaseModel):
    layers: list[Layer]

    @model_validator(mode="after")
    def _check(self):
        if not self.layers:
            raise ValueError("a network needs a layer")
        return self


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"layers": [{"width": "wide"}]}, ("layers.0.width", "got 'wide'")),
        ({"layers": [{"width": 1, "depth": 2}]}, ("unknown key 'layers.0.depth'",)),
        ({}, ("layers: Field required",)),
        ({"layers": []}, ("the file: a network needs a layer",)),
        ({"layers": [{"width": "x" * 1000}]}, ("layers.0.width",)),
    ],
)
def test_the_first_problem_names_its_key(content, parts):
    with pytest.raises(ValidationError) as caught:
        Network.model_validate(content)
    found = first_problem(caught.value)
    assert all(part in found for part in parts)
    assert len(found) < 200


def test_nouns_agree_with_their_number():
    assert count_noun(1, "glomerulus", "glomeruli") == "1 glomerulus"
    assert count_noun(1234, "image") == "1,234 images"
