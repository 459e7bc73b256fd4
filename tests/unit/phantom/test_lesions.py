import numpy as np
import pytest

from glomerulab.phantom.lesions import KINDS, Lesions, draw_lesions, kind_schedule


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_draws_exactly_its_labels(kind, rng):
    assert draw_lesions(kind, rng).labels == KINDS[kind]


def test_severity_spreads_from_subtle_to_plain(rng):
    severities = [draw_lesions("fsg", rng).fsg for _ in range(300)]
    assert min(severities) < 0.15
    assert max(severities) > 0.95


def test_twenty_glomeruli_hold_every_kind_in_fixed_numbers(rng):
    kinds = kind_schedule(20, rng)
    counts = {kind: kinds.count(kind) for kind in KINDS}
    assert counts == {"normal": 6, "mspgn": 4, "fsg": 4, "cgn": 4, "fsg+cgn": 2}


def test_a_schedule_is_as_long_as_asked(rng):
    assert [len(kind_schedule(n, rng)) for n in (0, 7, 41)] == [0, 7, 41]


def test_an_unknown_kind_is_refused_with_the_known_ones(rng):
    with pytest.raises(ValueError, match=r"normal, mspgn, .* got 'global'"):
        draw_lesions("global", rng)


@pytest.mark.parametrize("severity", [-0.1, 1.1, float("nan")])
def test_an_impossible_severity_is_refused(severity):
    with pytest.raises(ValueError, match="severity of fsg"):
        Lesions(fsg=severity)


def test_severity_does_not_tell_the_kind():
    # Each kind consumes the same random numbers, so that lesions do not shift what follows.
    states = []
    for kind in KINDS:
        rng = np.random.default_rng(4)
        draw_lesions(kind, rng)
        states.append(rng.random())
    assert len(set(states)) == 1
