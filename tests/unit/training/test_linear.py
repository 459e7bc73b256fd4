import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from glomerulab.errors import TrainingError
from glomerulab.training.linear import LinearFit, fit_linear

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)


def clusters(
    rng: np.random.Generator, *, n_classes: int = 3, n: int = 120, n_features: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, one-hot labels and patients of four images each."""
    classes = np.arange(n) % n_classes
    centres = rng.normal(size=(n_classes, n_features))
    features = centres[classes] + rng.normal(size=(n, n_features)) * 1.5
    return features, np.eye(n_classes)[classes], np.arange(n) // 4


def logits(fit: LinearFit, features: np.ndarray) -> np.ndarray:
    return ((features - fit.offset) * fit.scale) @ fit.weights.T + fit.bias


def penalised_fit(features: np.ndarray, labels: np.ndarray, strength: float) -> np.ndarray:
    """Minimise the penalised log-loss with a general optimiser; probabilities of the images."""
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    n_features, n_classes = scaled.shape[1], labels.shape[1]

    def probabilities(flat: np.ndarray) -> np.ndarray:
        weights = flat.reshape(n_features + 1, n_classes)
        return log_softmax(scaled @ weights[:-1] + weights[-1], axis=1)

    def loss(flat: np.ndarray) -> float:
        penalty = (flat.reshape(n_features + 1, n_classes)[:-1] ** 2).sum()
        return -strength * (labels * probabilities(flat)).sum() + penalty / 2

    found = minimize(loss, np.zeros((n_features + 1) * n_classes), method="BFGS")
    return np.exp(probabilities(found.x))


def test_probabilities_equal_those_of_a_general_optimiser(rng: np.random.Generator) -> None:
    features, labels, patients = clusters(rng)
    fit = fit_linear(features, labels, patients, head="softmax", strengths=[0.1])
    found = softmax(logits(fit, features), axis=1)
    assert np.allclose(found, penalised_fit(features, labels, 0.1), atol=1e-3)


def test_the_strength_with_the_lowest_held_out_loss_is_chosen(rng: np.random.Generator) -> None:
    noise = rng.normal(size=(80, 60))
    labels = np.eye(2)[rng.permutation(80) % 2]
    weak = fit_linear(noise, labels, np.arange(80), head="softmax", strengths=STRENGTHS)
    assert weak.strengths == (1e-3,)
    features, clear, patients = clusters(rng, n=240)
    strong = fit_linear(features * 5, clear, patients, head="softmax", strengths=STRENGTHS)
    assert strong.strengths[0] > 1e-3


def test_a_sigmoid_head_fits_each_label_on_its_known_images(rng: np.random.Generator) -> None:
    features, labels, patients = clusters(rng)
    labels[::5, 1] = np.nan
    fit = fit_linear(features, labels, patients, head="sigmoid", strengths=[0.1])
    assert fit.weights.shape == (3, 10)
    known = ~np.isnan(labels[:, 1])
    alone = fit_linear(
        features, np.stack([1 - labels[:, 1], labels[:, 1]], axis=1), patients,
        head="softmax", strengths=[0.1],
    )  # fmt: skip
    two = softmax(logits(alone, features), axis=1)[:, 1]
    assert np.allclose(expit(logits(fit, features)[:, 1]), two, atol=1e-4)
    assert ((expit(logits(fit, features)[known, 1]) > 0.5) == labels[known, 1]).mean() > 0.8


def test_a_constant_feature_changes_nothing(rng: np.random.Generator) -> None:
    features, labels, patients = clusters(rng)
    wider = np.column_stack([features, np.full(len(features), 3.0)])
    one = fit_linear(features, labels, patients, head="softmax", strengths=[0.1])
    two = fit_linear(wider, labels, patients, head="softmax", strengths=[0.1])
    assert np.allclose(logits(one, features), logits(two, wider), atol=1e-4)


def test_balance_gives_a_rare_class_equal_weight(rng: np.random.Generator) -> None:
    features, labels, patients = clusters(rng, n_classes=2, n=200)
    kept = (labels[:, 1] == 0) | (np.arange(200) < 40)
    rare = (features[kept], labels[kept], patients[kept])
    plain, balanced = (
        fit_linear(*rare, head="softmax", strengths=[0.1], is_balanced=balance)
        for balance in (False, True)
    )
    called = [np.argmax(logits(fit, rare[0]), axis=1).sum() for fit in (plain, balanced)]
    assert called[1] > called[0]


def test_a_class_of_one_patient_asks_for_a_given_strength(rng: np.random.Generator) -> None:
    features, labels, patients = clusters(rng, n_classes=2)
    patients = np.where(labels[:, 1] == 1, 999, patients)
    with pytest.raises(TrainingError, match=r"probe\.strengths"):
        fit_linear(features, labels, patients, head="softmax", strengths=STRENGTHS)
    fit_linear(features, labels, patients, head="softmax", strengths=[1.0])


def test_a_feature_that_is_constant_up_to_rounding_does_not_ruin_other_images(
    rng: np.random.Generator,
) -> None:
    features, labels, patients = clusters(rng)
    wider = np.column_stack([features, np.full(len(features), 0.1)]).astype(np.float32)
    wider[::2, -1] = np.nextafter(np.float32(0.1), np.float32(1))
    fit = fit_linear(wider, labels, patients, head="softmax", strengths=[0.1])
    other = wider.copy()
    other[:, -1] += 0.05
    assert np.allclose(logits(fit, wider), logits(fit, other), atol=1e-2)


def test_inner_folds_that_cannot_show_every_class_ask_for_a_given_strength(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels, _ = clusters(rng, n_classes=2, n=12)
    # Two patients of class 1 and two of class 0, divided by class.
    monkeypatch.setattr(
        "glomerulab.training.linear.StratifiedGroupKFold.split",
        lambda *_: [(np.arange(0, 12, 2), np.arange(1, 12, 2))],
    )
    with pytest.raises(TrainingError, match=r"probe\.strengths"):
        fit_linear(features, labels, np.arange(12) // 3, head="softmax", strengths=STRENGTHS)
