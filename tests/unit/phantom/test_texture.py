import numpy as np
import pytest

from glomerulab.phantom.texture import noise_at, noise_bank


def test_the_noise_is_standardised_and_cannot_be_changed():
    bank = noise_bank()
    assert bank.mean() == pytest.approx(0.0, abs=1e-5)
    assert bank.std() == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        bank[0, 0] = 1.0


def test_the_noise_repeats_without_a_seam():
    bank = noise_bank()
    for x, y in [(0.3, 0.7), (255.9, 3.2), (-0.4, -7.7)]:
        assert noise_at(bank, x, y) == pytest.approx(noise_at(bank, x + 256, y - 512), abs=1e-4)
    assert noise_at(bank, 255.9999, 4.0) == pytest.approx(noise_at(bank, 0.0001, 4.0), abs=1e-2)


def test_at_a_cell_the_noise_is_the_cell():
    bank = noise_bank()
    assert noise_at(bank, 17.0, 41.0) == pytest.approx(float(bank[41, 17]))


def test_neighbouring_noise_is_alike():
    bank = noise_bank()
    assert np.corrcoef(bank[:, :-1].ravel(), bank[:, 1:].ravel())[0, 1] > 0.4
