"""From weights of a ResNet-50 and unlabelled images to a run that others start from.

The improved network learns stage by stage what the ResNet computes (`models.stage_matching`).
Every step is seeded by its own number, so a stopped one goes on to the same weights.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.v2 as transforms
from accelerate import Accelerator
from torch import Tensor, nn

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import CheckpointError, ManifestError, OutputError
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
from glomerulab.models.transfer.weights import load_matching, read_weights
from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.runtime.progress import Track, silent
from glomerulab.training.batch_norm import remeasure_batch_norm
from glomerulab.training.history import write_history
from glomerulab.training.loop import Progress
from glomerulab.training.precision import uses_bfloat16
from glomerulab.training.schedule import cosine_rate
from glomerulab.training.state import has_state, load_state, save_state

__all__ = ["Distillation", "distill"]

STUDENT, TEACHER = "improved_seresnet50", "resnet50"
FORCED_SHARE = 0.6
"""Of the steps, in which stages learn side by side; then each reads what the one before made."""
N_WARMUP = 50
N_MEASURED_BATCHES = 32
STEPS_PER_ROW = 100
MAX_CACHE_BYTES = 1_000_000_000
LEAST_CROP_SHARE = 0.03
"""Of an image's area: crops show structures at up to five or six magnifications."""


@dataclass(frozen=True, slots=True)
class Distillation:
    """What to learn from what."""

    manifest: Path
    """Its images outside validation and test are shown; labels are not used."""
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
    """Of the network that learns, see `ImprovedModule`; who starts from it needs the same."""

    @property
    def options(self) -> dict[str, bool]:
        """What the network that learns is told beside its defaults."""
        return {"activation_inside_pair": True} if self.activation_inside_pair else {}


def distill(settings: Distillation, *, track: Track = silent) -> list[dict[str, float | None]]:
    """Teach an improved network the whole stages of a ResNet-50, and write it as a run.

    Parameters
    ----------
    settings : Distillation
    track : Track, optional

    Returns
    -------
    list of dict
        One row per hundred steps: ``step``, and for each stage ``unexplained_<n>``, the share of
        the variance of the teacher's maps that the stage does not give.

    Raises
    ------
    CheckpointError
        If the weights cannot be read or lack a part of ResNet-50's first stage.
    ManifestError
        If no image may be shown.
    OutputError
        If `out` holds a run that was made otherwise.
    """
    images = _Crops(_shown(read_manifest(settings.manifest)), settings)
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
    learned = nn.ModuleList(model.stages[: len(teacher.means)])
    optimizer = torch.optim.Adam(learned.parameters(), lr=settings.learning_rate)
    progress = Progress(model, optimizer, [])
    _open(settings, progress)
    _learn(progress, teacher, images, settings, track=track)
    _write_run(model, images, settings)
    return progress.history


def _learn(
    progress: Progress,
    teacher: StageTeacher,
    images: "_Crops",
    settings: Distillation,
    *,
    track: Track,
) -> None:
    model, optimizer = progress.model, progress.optimizer
    assert isinstance(model, ImprovedSeResNet)
    model.train()
    cpu = torch.device("cpu")
    use_bfloat16 = uses_bfloat16("auto", cpu, input_size=settings.input_size)
    first = STEPS_PER_ROW * len(progress.history)
    sums = np.zeros(len(teacher.means))
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
        sums += [
            (loss.detach() / target.var()).item()
            for loss, target in zip(losses, targets, strict=True)
        ]
        if (step + 1) % STEPS_PER_ROW == 0 or step + 1 == settings.n_steps:
            n_summed = step + 1 - STEPS_PER_ROW * len(progress.history)
            shares = {f"unexplained_{at + 1}": float(s) / n_summed for at, s in enumerate(sums)}
            progress.history.append({"step": step + 1, **shares})
            save_state(settings.out / "state", progress, model.state_dict())
            write_history(progress.history, settings.out / "history.csv")
            sums[:] = 0.0


def _write_run(model: ImprovedSeResNet, images: "_Crops", settings: Distillation) -> None:
    """Measure the norms with the weights as they are now, and write the checkpoint."""
    batches = [images.batch(-2 - at, settings.batch_size) for at in range(N_MEASURED_BATCHES)]
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
    weights = read_weights(settings.teacher)
    resnet = create_model(TEACHER, 1)
    loaded = load_matching(resnet, weights, input_size=64, leave=head_layers(resnet))
    n_stages = n_complete_stages(loaded)
    if n_stages == 0:
        raise CheckpointError(
            "lacks a part of ResNet-50's stem or first stage: nothing to learn from",
            where=str(settings.teacher),
        )
    resnet.to(memory_format=torch.channels_last)
    some = images.batch(-1, 4 * settings.batch_size)
    return StageTeacher.measured(resnet, some, n_stages=n_stages), weights


def _shown(manifest: Manifest) -> Manifest:
    """Return the images that are in no validation or test part, and no copies of others."""
    table = manifest.table
    judged = table["split"].isin(["validation", "test"]).to_numpy(dtype=bool)
    shown = manifest.with_table(table[~judged & table["parent_id"].isna().to_numpy(dtype=bool)])
    if shown.table.empty:
        raise ManifestError("has no image outside its validation and test parts")
    return shown


def _open(settings: Distillation, progress: Progress) -> None:
    """Make the run folder, or take up what stands there."""
    path = settings.out / "distillation.json"
    facts = {key: str(v) if isinstance(v, Path) else v for key, v in asdict(settings).items()}
    del facts["out"]
    if not path.is_file():
        make_folder(settings.out)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    # Those that were begun before there was this option did without.
    elif {"activation_inside_pair": False} | json.loads(path.read_text(encoding="utf-8")) != facts:
        raise OutputError(
            "was begun with other settings (distillation.json); give the same, or another --out",
            where=str(settings.out),
        )
    if has_state(settings.out / "state"):
        load_state(settings.out / "state", progress)


class _Crops:
    """Random square crops of a manifest's images, the same ones for the same step."""

    def __init__(self, manifest: Manifest, settings: Distillation) -> None:
        self.manifest = manifest
        self.paths = manifest.image_paths()
        self.seed = settings.seed
        size = settings.input_size
        self.crop = transforms.Compose(
            [
                transforms.RandomResizedCrop(
                    size, scale=(LEAST_CROP_SHARE, 1.0), ratio=(1.0, 1.0), antialias=True
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
        """Return the images of a step, shape (n_images, 3, S, S); below 0 for measurements."""
        seed = int(np.random.SeedSequence((self.seed, step + 10_000_000)).generate_state(1)[0])
        places = np.random.default_rng(seed).integers(len(self.paths), size=n_images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            crops = [self.crop(self._load(int(place))) for place in places]
        return torch.stack(crops).contiguous(memory_format=torch.channels_last)

    def _load(self, place: int) -> Tensor:
        pixels = self._cache.get(place)
        if pixels is None:
            pixels = torch.from_numpy(read_image(self.paths[place])).permute(2, 0, 1)
            if self._n_cached_bytes + pixels.numel() <= MAX_CACHE_BYTES:
                self._cache[place] = pixels
                self._n_cached_bytes += pixels.numel()
        return pixels
