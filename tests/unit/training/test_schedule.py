import pytest
import torch

from glomerulab.training.schedule import constant_rate, cosine_rate, multistep_rate


def test_equation_8_equals_torchs_multistep() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    peer = torch.optim.lr_scheduler.MultiStepLR(optimizer, [60, 120, 160], gamma=0.1)
    for epoch in range(200):
        ours = multistep_rate(epoch, initial=0.1, milestones=[60, 120, 160], gamma=0.1)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        peer.step()


def test_the_cosine_falls_from_the_initial_rate_towards_nothing() -> None:
    rates = [cosine_rate(epoch, initial=1.0, n_epochs=10) for epoch in range(11)]
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0)
    assert rates == sorted(rates, reverse=True)


def test_the_cosine_may_rise_first() -> None:
    rates = [cosine_rate(epoch, initial=1.0, n_epochs=10, n_warmup=3) for epoch in range(4)]
    assert rates == [0.25, 0.5, 0.75, 1.0]


def test_constant_stays() -> None:
    assert constant_rate(7, initial=0.3) == 0.3
