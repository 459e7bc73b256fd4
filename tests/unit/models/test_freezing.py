import pytest
import torch
from torch import nn

from glomerulab.models.freezing import freeze_batchnorm_stats, freeze_first


def _model() -> nn.Sequential:
    """Layers of 24, 16, 136, 16 and 18 parameters."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 17, 1, bias=False),
        nn.BatchNorm2d(17),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(17, 2),
    )


PRETRAINED = ("0.weight", "1.weight", "1.bias", "2.weight", "3.weight", "3.bias")


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, ()),
        (0.11, ()),
        (24 / 210, ("0",)),
        (0.25, ("0", "1")),
        (0.75, ("0", "1")),
        (176 / 210, ("0", "1", "2")),
        (1.0, ("0", "1", "2", "3")),
    ],
)
def test_the_first_layers_that_fit_the_share_are_frozen(
    share: float, expected: tuple[str, ...]
) -> None:
    model = _model()
    assert freeze_first(model, PRETRAINED, share=share, input_size=4) == expected
    frozen = {key.partition(".")[0] for key, w in model.named_parameters() if not w.requires_grad}
    assert frozen == set(expected)


def test_a_layer_that_is_not_wholly_pretrained_is_never_frozen() -> None:
    model = _model()
    assert freeze_first(model, ("0.weight", "1.weight"), share=1.0, input_size=4) == ("0",)
    assert model[1].bias.requires_grad


def test_frozen_norms_judge_while_the_others_train() -> None:
    model = _model()
    freeze_first(model, PRETRAINED, share=0.25, input_size=4)
    freeze_batchnorm_stats(model.train())
    assert (model[1].training, model[3].training) == (False, True)
    before = model[1].running_mean.clone()
    model(torch.rand(4, 3, 4, 4))
    assert torch.equal(model[1].running_mean, before)
    assert not torch.equal(model[3].running_mean, torch.zeros(17))


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 1.5"):
        freeze_first(_model(), (), share=1.5, input_size=4)
