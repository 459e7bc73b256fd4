import io

import numpy as np
from PIL import Image

from glomerulab.apps.serve.overlays import Overlays
from tests.support.cases import picture


def test_a_crop_and_its_map_are_side_by_side(trained, rng):
    pixels = picture(rng, "cgn", 32)
    shown = np.asarray(Image.fromarray(pixels).resize((120, 60)))
    overlays = Overlays(trained)
    drawn = np.asarray(Image.open(io.BytesIO(overlays.draw(pixels, shown, "cgn"))))
    assert drawn.shape == (60, 240, 3)
    assert np.array_equal(drawn[:, :120], shown)
    other = np.asarray(Image.open(io.BytesIO(overlays.draw(pixels, shown, "normal"))))
    assert not np.array_equal(drawn, other)


def test_the_map_is_the_one_that_explain_computes(trained, rng):
    from glomerulab.explain.attribution import attribute, overlay_beside
    from glomerulab.explain.explainer import Explainer

    pixels = picture(rng, "cgn", 32)
    explainer = Explainer(trained)
    card = explainer.card
    import torch

    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (card.mean, card.std))
    expected = attribute(explainer.model, (image - mean) / std, 3, "grad-cam").numpy()
    drawn = np.asarray(Image.open(io.BytesIO(Overlays(trained).draw(pixels, pixels, "cgn"))))
    difference = np.abs(drawn.astype(int) - overlay_beside(pixels, expected))
    assert difference.max() <= 2
