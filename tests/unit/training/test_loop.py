import torch
from accelerate import Accelerator

from glomerulab.cohort.manifest import read_manifest
from glomerulab.models.registry import create_model
from glomerulab.training.config import OptimizerConfig, TrainConfig
from glomerulab.training.dataset import CropDataset
from glomerulab.training.loop import Compute, fit, make_optimizer, predict_logits
from glomerulab.training.state import TrainingState


def _fit(config: TrainConfig) -> tuple[TrainingState, list[bool]]:
    manifest = read_manifest(config.manifest)
    dataset = CropDataset(manifest, input_size=32)
    model = create_model("improved_seresnet_small", 2)
    state = TrainingState(model, make_optimizer(model, config.optimizer), [])
    best: list[bool] = []
    fit(
        state,
        dataset,
        dataset,
        config,
        Compute(Accelerator(), use_bfloat16=False),
        after_epoch=lambda _, is_best: best.append(is_best),
    )
    return state, best


def test_every_epoch_is_reported_with_its_rate_and_whether_it_is_best(config: TrainConfig) -> None:
    state, best = _fit(config)
    losses = [row["validation_loss"] for row in state.history]
    assert [row["epoch"] for row in state.history] == [1, 2, 3]
    expected = [config.schedule.rate(e, initial=3e-3, n_epochs=3) for e in range(3)]
    assert [row["learning_rate"] for row in state.history] == expected
    assert best == [loss == min(losses[: at + 1]) for at, loss in enumerate(losses)]


def test_a_frozen_weight_is_not_given_to_the_optimizer() -> None:
    model = create_model("improved_seresnet_small", 2)
    model.stem.requires_grad_(requires_grad=False)
    for name, kind in (("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")):
        optimizer = make_optimizer(model, OptimizerConfig(name=name))
        assert type(optimizer).__name__ == kind
        given = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        assert id(model.stem[0].weight) not in given


def test_logits_come_in_the_order_of_the_manifest(config: TrainConfig) -> None:
    dataset = CropDataset(read_manifest(config.manifest), input_size=32)
    model = create_model("improved_seresnet_small", 2)
    logits = predict_logits(model, dataset, config, Compute(Accelerator(), use_bfloat16=False))
    with torch.inference_mode():
        single = model(dataset[10][0][None])[0]
    assert torch.allclose(logits[10], single, atol=1e-5)
