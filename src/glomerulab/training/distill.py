"""Distil a ResNet-50 into the improved network on unlabelled images, as a start for trainings.

The improved network learns to reproduce the ResNet's stages (`models.transfer.stage_matching`).
Every step is seeded by its number, so that a stopped run continues to the same weights.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.v2 as transforms
from accelerate import Accelerator
from torch import Tensor, nn

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import CheckpointError, ManifestError
from glomerulab.images import read_image
from glomerulab.models.checkpoint import ModelCard, save_checkpoint
from glomerulab.models.layers import head_layers
from glomerulab.models.networks.improved_seresnet import ImprovedSeResNet
from glomerulab.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from glomerulab.models.registry import create_model
from glomerulab.models.transfer.stage_matching import (
    StageTeacher,
    align_with_teacher,
    matching_losses,
    n_complete_stages,
)
from glomerulab.models.transfer.weight_files import read_weights
from glomerulab.models.transfer.weights import load_matching
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import SettingsFile
from glomerulab.training.batch_norm import remeasure_batch_norm
from glomerulab.training.config import cosine_rate
from glomerulab.training.hardware import uses_bfloat16
from glomerulab.training.history import write_history
from glomerulab.training.state import TrainingState, has_state, load_state, save_state

__all__ = ["Distillation", "distill"]

STUDENT, TEACHER = "improved_seresnet50", "resnet50"
FORCED_SHARE = 0.6
"""Share of the steps in which each stage reads the teacher's maps; then it reads the student's."""
N_WARMUP = 50
N_NORM_BATCHES = 32
STEPS_PER_ROW = 100
MAX_CACHE_BYTES = 1_000_000_000
MIN_CROP_SHARE = 0.03
"""Of an image's area, so that crops show structures at up to six magnifications."""


@dataclass(frozen=True, slots=True)
class Distillation:
    """Settings of a distillation."""

    manifest: Path
    """Its images outside validation and test are used, without labels."""
    teacher: Path
    """Weights of ResNet-50, its first stage at least."""
    out: Path
    n_steps: int = 3000
    input_size: int = 64
    """Height and width of the crops, px."""
    batch_size: int = 16
    learning_rate: float = 2e-3
    seed: int = 0
    activation_inside_pair: bool = False
    """Of the student, see `ImprovedModule`; trainings that start from it need the same."""

    @property
    def options(self) -> dict[str, bool]:
        """Options of the student network."""
        return {"activation_inside_pair": True} if self.activation_inside_pair else {}


def distill(settings: Distillation, *, track: Track = silent) -> list[dict[str, float | None]]:
    """Distil the complete stages of a ResNet-50 into an improved network, and write it as a run.

    Returns
    -------
    list of dict
        One row per hundred steps: ``step``, and for each stage ``unexplained_<n>``, the share of
        the variance of the teacher's maps that the stage does not explain.

    Raises
    ------
    CheckpointError
        If the weights cannot be read or lack a part of ResNet-50's first stage.
    ManifestError
        If there is no image outside the validation and test parts.
    OutputError
        If `out` holds a run with other settings.
    """
    images = _Crops(_training_images(read_manifest(settings.manifest)), settings)
    teacher, weights = _teacher(settings, images)
    model = create_model(
        STUDENT,
        len(images.manifest.taxonomy.label_ids),
        seed=settings.seed,
        options=settings.options,
    )
    assert isinstance(model, ImprovedSeResNet)
    align_with_teacher(model, teacher, weights, images.batch(-1, 4 * settings.batch_size))
    model.to(memory_format=torch.channels_last)
    trained = nn.ModuleList(model.stages[: len(teacher.means)])
    optimizer = torch.optim.Adam(trained.parameters(), lr=settings.learning_rate)
    state = TrainingState(model, optimizer, [])
    _open_run(settings, state)
    _train(state, teacher, images, settings, track=track)
    _write_run(model, images, settings)
    return state.history


def _train(
    state: TrainingState,
    teacher: StageTeacher,
    images: "_Crops",
    settings: Distillation,
    *,
    track: Track,
) -> None:
    model, optimizer = state.model, state.optimizer
    assert isinstance(model, ImprovedSeResNet)
    model.train()
    cpu = torch.device("cpu")
    use_bfloat16 = uses_bfloat16("auto", cpu, input_size=settings.input_size)
    first = STEPS_PER_ROW * len(state.history)
    totals = np.zeros(len(teacher.means))
    n_left = max(0, settings.n_steps - first)
    for step in track(range(first, settings.n_steps), "Matching", n_left):
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(
                step, initial=settings.learning_rate, n_epochs=settings.n_steps, n_warmup=N_WARMUP
            )
        batch = images.batch(step, settings.batch_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16):
            targets = teacher.targets(batch)
            forced = step < FORCED_SHARE * settings.n_steps
            losses = matching_losses(model, batch, targets, forced=forced)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(losses)
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
        totals += [
            (loss.detach() / target.var()).item()
            for loss, target in zip(losses, targets, strict=True)
        ]
        if (step + 1) % STEPS_PER_ROW == 0 or step + 1 == settings.n_steps:
            n_steps = step + 1 - STEPS_PER_ROW * len(state.history)
            shares = {
                f"unexplained_{stage}": float(total) / n_steps
                for stage, total in enumerate(totals, start=1)
            }
            state.history.append({"step": step + 1, **shares})
            save_state(settings.out / "state", state, model.state_dict())
            write_history(state.history, settings.out / "history.csv")
            totals[:] = 0.0


def _write_run(model: ImprovedSeResNet, images: "_Crops", settings: Distillation) -> None:
    """Measure the norms with the final weights, and write the checkpoint."""
    batches = [images.batch(-2 - i, settings.batch_size) for i in range(N_NORM_BATCHES)]
    remeasure_batch_norm(model, batches, accelerator=Accelerator(cpu=True), use_bfloat16=False)
    taxonomy = images.manifest.taxonomy
    card = ModelCard(
        model=STUDENT,
        options=dict(settings.options),
        taxonomy_name=taxonomy.name,
        labels=taxonomy.labels,
        input_size=settings.input_size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    save_checkpoint(settings.out / "checkpoint", model.state_dict(), card)


def _teacher(settings: Distillation, images: "_Crops") -> tuple[StageTeacher, dict[str, Tensor]]:
    resnet = create_model(TEACHER, 1)
    weights = read_weights(settings.teacher, resnet).tensors
    loaded = load_matching(resnet, weights, input_size=64, leave=head_layers(resnet))
    n_stages = n_complete_stages(loaded)
    if n_stages == 0:
        raise CheckpointError(
            "the weights lack a part of ResNet-50's stem or first stage; give a file that has both",
            where=str(settings.teacher),
        )
    resnet.to(memory_format=torch.channels_last)
    some = images.batch(-1, 4 * settings.batch_size)
    return StageTeacher.measured(resnet, some, n_stages=n_stages), weights


def _training_images(manifest: Manifest) -> Manifest:
    """Return the original images outside the validation and test parts."""
    table = manifest.table
    held_out = table["split"].isin(["validation", "test"]).to_numpy(dtype=bool)
    is_original = table["parent_id"].isna().to_numpy(dtype=bool)
    found = manifest.with_table(table[~held_out & is_original])
    if found.table.empty:
        raise ManifestError(
            "there is no image outside the validation and test parts", where=manifest.location
        )
    return found


def _open_run(settings: Distillation, state: TrainingState) -> None:
    """Create the run folder, or restore the state of the run in it."""
    facts = {key: str(v) if isinstance(v, Path) else v for key, v in asdict(settings).items()}
    del facts["out"]
    make_folder(settings.out)
    SettingsFile(settings.out / "distillation.json").continue_or_refuse(
        facts,
        way_out="give the same settings, or another --out",
        defaults={"activation_inside_pair": False},  # not recorded by early versions
    )
    if has_state(settings.out / "state"):
        load_state(settings.out / "state", state)


class _Crops:
    """Random square crops of a manifest's images, the same for the same step."""

    def __init__(self, manifest: Manifest, settings: Distillation) -> None:
        self.manifest = manifest
        self.paths = manifest.image_paths()
        self.seed = settings.seed
        size = settings.input_size
        self.crop = transforms.Compose(
            [
                transforms.RandomResizedCrop(
                    size, scale=(MIN_CROP_SHARE, 1.0), ratio=(1.0, 1.0), antialias=True
                ),
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.ColorJitter(0.1, 0.1, 0.1, 0.02),
                transforms.ToDtype(torch.float32, scale=True),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )
        self._cache: dict[int, Tensor] = {}
        self._n_cached_bytes = 0

    def batch(self, step: int, n_images: int) -> Tensor:
        """Return the crops of a step, shape (n, 3, S, S); negative steps are for measuring."""
        seed = int(np.random.SeedSequence((self.seed, step + 10_000_000)).generate_state(1)[0])
        indices = np.random.default_rng(seed).integers(len(self.paths), size=n_images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            crops = [self.crop(self._load(int(index))) for index in indices]
        return torch.stack(crops).contiguous(memory_format=torch.channels_last)

    def _load(self, index: int) -> Tensor:
        pixels = self._cache.get(index)
        if pixels is None:
            pixels = torch.from_numpy(read_image(self.paths[index])).permute(2, 0, 1)
            if self._n_cached_bytes + pixels.numel() <= MAX_CACHE_BYTES:
                self._cache[index] = pixels
                self._n_cached_bytes += pixels.numel()
        return pixels
