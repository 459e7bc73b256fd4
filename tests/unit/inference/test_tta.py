import numpy as np
import pytest
from scipy.special import expit, softmax

from glomerulab.inference.engines.base import Answers, open_engine, probabilities_of
from glomerulab.inference.tta import SymmetricEngine


class Corner:
    """Answers by the brightness of one corner: it changes with every turn."""

    weights_sha256 = "ab"
    n_at_once = 1

    def __init__(self, head: str) -> None:
        self.card = type("Card", (), {"head": head})()

    def answer(self, images):
        value = images[:, 0, 0, 0].astype(np.float32) / 50
        return Answers(np.stack([value, -value], axis=1), value[:, None])


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_the_mean_probability_of_all_eight_is_given(head: str) -> None:
    image = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    corners = {(0, 0): 10, (0, 3): 60, (3, 0): 110, (3, 3): 160}
    for place, value in corners.items():
        image[(0, *place)] = value
    found = SymmetricEngine(Corner(head)).answer(image)
    logits = np.array([[v / 50, -v / 50] for v in corners.values()])
    each = softmax(logits, axis=1) if head == "softmax" else expit(logits)
    # Each corner comes to the upper left in two of the eight symmetries.
    np.testing.assert_allclose(
        probabilities_of(found.logits, head)[0], each.mean(axis=0), atol=1e-6
    )
    assert found.features.tolist() == [[pytest.approx(0.2)]]


def test_a_turned_image_gets_the_same_answer(trained, rng) -> None:
    engine = SymmetricEngine(open_engine(trained))
    size = engine.card.input_size
    images = rng.integers(0, 255, (3, size, size, 3), dtype=np.uint8)
    plain = engine.answer(images).logits
    turned = engine.answer(np.ascontiguousarray(np.rot90(images, axes=(1, 2))[:, :, ::-1])).logits
    np.testing.assert_allclose(plain, turned, atol=1e-4)
