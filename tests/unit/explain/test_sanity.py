import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from glomerulab.explain.sanity import SHARES, randomised, rank_correlation
from glomerulab.models.checkpoint import ModelCard
from glomerulab.models.registry import create_model
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")
CARD = ModelCard(
    model="improved_seresnet_small",
    taxonomy_name=PAPER.name,
    labels=PAPER.labels,
    input_size=32,
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
)


def test_weights_are_forgotten_from_the_classifier_down_until_none_is_left():
    model = create_model(CARD.model, 4, seed=1).eval()
    n_kept, states = [], []
    for share, forgotten in randomised(model, CARD, seed=2):
        states.append(share)
        kept = [
            name
            for name, weight in forgotten.named_parameters()
            if weight.ndim > 1 and torch.equal(weight, model.get_parameter(name))
        ]
        n_kept.append(len(kept))
        assert "classifier.weight" not in kept
        assert not forgotten.training
    assert tuple(states) == SHARES
    assert n_kept == sorted(n_kept, reverse=True)
    assert len(set(n_kept)) == len(SHARES)
    assert n_kept[-1] == 0


def test_the_model_itself_is_left_alone():
    model = create_model(CARD.model, 4, seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    list(randomised(model, CARD, seed=2))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_correlation_is_pearsons_of_the_ranks():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 9, 7)).astype(np.float32)
    ranks = [rankdata(one) for one in (first, second)]
    assert rank_correlation(first, second) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert rank_correlation(first, first**3) == pytest.approx(1.0)


def test_an_empty_map_has_no_correlation():
    assert np.isnan(rank_correlation(np.zeros((3, 3), np.float32), np.ones((3, 3), np.float32)))
