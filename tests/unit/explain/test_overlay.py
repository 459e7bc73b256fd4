import numpy as np

from glomerulab.explain.overlay import laid_over, overlay


def _image(height=20, width=30):
    return np.full((height, width, 3), (200, 120, 160), dtype=np.uint8)


def test_the_image_stands_unchanged_beside_its_map():
    drawn = overlay(_image(), np.zeros((8, 8), dtype=np.float32))
    assert drawn.shape == (20, 60, 3)
    assert (drawn[:, :30] == _image()).all()
    grey = drawn[:, 30:]
    assert (grey == 160).all()  # nothing salient: plain grey


def test_what_is_salient_is_coloured_and_what_is_not_stays_grey():
    saliency = np.zeros((10, 10), dtype=np.float32)
    saliency[2:4, 2:4] = 7.0
    shown = overlay(_image(100, 100), saliency)[:, 100:].astype(int)
    spread = shown.max(axis=2) - shown.min(axis=2)
    assert spread[30, 30] > 60
    assert spread[80, 80] == 0


def test_the_lesion_gets_an_outline_and_not_a_filling():
    mask = np.zeros((100, 100), dtype=bool)
    mask[30:70, 30:70] = True
    shown = overlay(_image(100, 100), np.zeros((100, 100), np.float32), mask=mask)[:, 100:]
    orange = (shown == (213, 94, 0)).all(axis=2)
    assert orange[30, 50]
    assert orange[50, 69]
    assert not orange[50, 50]
    assert not orange[20, 50]


def test_the_map_alone_is_the_right_half_of_the_pair(rng) -> None:
    image = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    saliency = rng.random((5, 5), dtype=np.float32)
    alone = laid_over(image, saliency)
    assert alone.shape == image.shape
    assert (overlay(image, saliency)[:, 30:] == alone).all()
