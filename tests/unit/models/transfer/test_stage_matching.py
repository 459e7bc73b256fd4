import pytest
import torch

from glomerulab.models.networks.improved_seresnet import improved_seresnet50
from glomerulab.models.registry import create_model
from glomerulab.models.transfer.stage_matching import (
    StageTeacher,
    align_with_teacher,
    first_modules,
    matching_losses,
    n_complete_stages,
)
from glomerulab.models.transfer.weights import LoadResult

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet() -> torch.nn.Module:
    model = create_model("resnet50", 1, seed=3)
    generator = torch.Generator().manual_seed(4)
    for name, values in model.state_dict().items():
        if "bn" in name and values.is_floating_point():
            values.uniform_(0.5, 1.5, generator=generator)
    model.bn1.weight.data[::2] *= -1
    return model.eval()


def test_targets_are_the_stages_of_the_resnet_with_mean_0_and_spread_1(
    resnet: torch.nn.Module,
) -> None:
    teacher = StageTeacher.measured(resnet, IMAGES, n_stages=2)
    first, second, *summaries = teacher.targets(IMAGES)
    assert [tuple(summary.shape) for summary in summaries] == [(4, 1024, 4, 4), (4, 2048, 2, 2)]
    maps = resnet.layer1(resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(IMAGES)))))
    assert torch.allclose(first * teacher.spreads[0] + teacher.means[0], maps, atol=1e-3)
    assert second.shape == (4, 512, 8, 8)
    for target, spread in zip((first, second, *summaries), teacher.spreads, strict=True):
        varied = (spread > 0.011).flatten()
        assert target.mean(dim=(0, 2, 3)).abs().max() < 1e-3
        assert torch.allclose(target.std(dim=(0, 2, 3))[varied], torch.tensor(1.0), atol=1e-3)


def test_targets_behind_the_last_complete_stage_are_statistics_of_blocks(
    resnet: torch.nn.Module,
) -> None:
    teacher = StageTeacher.measured(resnet, IMAGES, n_stages=2)
    _, second, third, fourth = (
        target * spread + mean
        for target, mean, spread in zip(
            teacher.targets(IMAGES), teacher.means, teacher.spreads, strict=True
        )
    )
    pairs, fours = (
        second.unfold(2, n, n).unfold(3, n, n).flatten(start_dim=4) for n in (2, 4)
    )  # (B, C, H / n, W / n, n²)
    assert torch.allclose(third, torch.cat([pairs.mean(4), pairs.amax(4)], 1), atol=1e-3)
    statistics = [fours.mean(4), fours.amax(4), fours.amin(4), fours.std(4, correction=0)]
    assert torch.allclose(fourth, torch.cat(statistics, 1), atol=1e-3)


def test_summaries_of_odd_maps_have_the_size_of_the_network(resnet: torch.nn.Module) -> None:
    images = torch.randn(2, 3, 75, 75, generator=torch.Generator().manual_seed(1))
    targets = StageTeacher.measured(resnet, images, n_stages=2).targets(images)
    made = improved_seresnet50(2).eval().stage_maps(images)
    assert [target.shape for target in targets] == [maps.shape for maps in made]


def test_an_aligned_network_has_the_exact_stem_and_reads_targets_like_the_resnet(
    resnet: torch.nn.Module,
) -> None:
    teacher = StageTeacher.measured(resnet, IMAGES, n_stages=1)
    model = improved_seresnet50(2).eval()
    align_with_teacher(model, teacher, resnet.state_dict(), IMAGES)
    first, second = first_modules(model)[:2]
    with torch.no_grad():
        stem = first.norm1(model.stem(IMAGES)).relu()
        expected = resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(IMAGES))))
        assert torch.allclose(stem, expected, atol=1e-3)
        target = teacher.targets(IMAGES)[0]
        read = second.norm1(target).relu() * teacher.spreads[0]
        assert torch.allclose(read, resnet.layer1(expected), atol=1e-3)


def test_the_last_norm_of_an_aligned_network_reads_summaries_unchanged(
    resnet: torch.nn.Module,
) -> None:
    teacher = StageTeacher.measured(resnet, IMAGES, n_stages=2)
    model = improved_seresnet50(2).eval()
    align_with_teacher(model, teacher, resnet.state_dict(), IMAGES)
    with torch.no_grad():
        target = teacher.targets(IMAGES)[3]
        read = model.norm(target).relu() * teacher.spreads[3]
    # Statistics of values behind a ReLU are never negative: its own ReLU leaves them alone.
    assert torch.allclose(read, target * teacher.spreads[3] + teacher.means[3], atol=1e-3)


def test_training_steps_lower_the_losses_and_leave_later_stages_unchanged(
    resnet: torch.nn.Module,
) -> None:
    teacher = StageTeacher.measured(resnet, IMAGES, n_stages=1)
    model = improved_seresnet50(2).train()
    align_with_teacher(model, teacher, resnet.state_dict(), IMAGES)
    targets = teacher.targets(IMAGES)[:1]
    optimizer = torch.optim.Adam(model.stages[0].parameters(), lr=1e-3)
    seen = []
    for _ in range(6):
        losses = matching_losses(model, IMAGES, targets, forced=True)
        assert len(losses) == 1
        seen.append(losses[0].item())
        losses[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert seen[-1] < 0.9 * seen[0]
    untouched = [*model.stem.parameters(), *model.stages[1].parameters()]
    assert all(weight.grad is None for weight in untouched)


def test_only_complete_stages_count() -> None:
    assert n_complete_stages(LoadResult(())) == 4
    assert n_complete_stages(LoadResult((), missing=("layer3.0.conv2.weight",))) == 2
    assert n_complete_stages(LoadResult((), misshapen=("layer1.0.conv2.weight",))) == 0
    assert n_complete_stages(LoadResult((), reset=("bn1.weight",))) == 0


def test_readings_with_other_channels_and_invalid_stage_numbers_are_refused(
    resnet: torch.nn.Module,
) -> None:
    with pytest.raises(ValueError, match="n_stages must be from 1 to 4, got 5"):
        StageTeacher.measured(resnet, IMAGES, n_stages=5)
    teacher = StageTeacher.measured(resnet, IMAGES, n_stages=1)
    model = improved_seresnet50(2, reading="cited")
    with pytest.raises(ValueError, match=r"64 channels and the teacher's 256; only .* 'paper'"):
        align_with_teacher(model, teacher, resnet.state_dict(), IMAGES)
