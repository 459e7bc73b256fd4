import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from glomerulab.runtime.messages import count_noun, did_you_mean, first_problem
from glomerulab.training.config import TrainConfig


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
        ({}, ("layers is missing",)),
        ({"layers": []}, ("a network needs a layer",)),
        ({"layers": [{"width": "x" * 1000}]}, ("layers.0.width",)),
    ],
)
def test_the_first_problem_names_its_key(content, parts):
    with pytest.raises(ValidationError) as caught:
        Network.model_validate(content)
    found = first_problem(caught.value)
    assert all(part in found for part in parts)
    assert len(found) < 200


FILE = {"manifest": "m.csv", "out": "run"}


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("epochs", "two", "a whole number"),
        ("epochs", 1.5, "a whole number"),
        ("epochs", 0, "at least 1"),
        ("label_smoothing", "much", "a number"),
        ("label_smoothing", 1, "below 1"),
        ("clip_gradient_norm", 0, "above 0"),
        ("tensorboard", "perhaps", "true or false"),
        ("balance", "best", "'none', 'weights' or 'sampling'"),
        ("model", 3, "a table"),
        ("model.mean", 3, "a list"),
        ("model.name", 3, "a text"),
        ("manifest", 3, "a path"),
        ("schedule.kind", "step", "'multistep', 'cosine', 'constant'"),
    ],
)
def test_a_problem_is_a_sentence_with_key_rule_and_given_value(key, value, rule):
    outer, _, inner = key.partition(".")
    with pytest.raises(ValidationError) as caught:
        TrainConfig.model_validate(FILE | {outer: {inner: value} if inner else value})
    found = first_problem(caught.value)
    assert found.startswith(f"{key} must be ")
    assert rule in found
    assert found.endswith(f"got {value!r}")
    assert "Input" not in found


def test_a_similar_name_is_suggested():
    assert did_you_mean("epoch", ["epochs", "seed"]) == "; did you mean 'epochs'?"
    assert did_you_mean("zzz", ["epochs"]) == ""


def test_nouns_agree_with_their_number():
    assert count_noun(1, "glomerulus", "glomeruli") == "1 glomerulus"
    assert count_noun(1234, "image") == "1,234 images"
