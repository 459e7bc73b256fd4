"""Every file of every kind of model folder, changed in every way, opened by every loader.

Either the loader refuses the folder and names a file, or what it gives is what it gave before.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from glomerulab.apps.serve.metrics import Metrics
from glomerulab.apps.serve.service import load_served_model
from glomerulab.cli.main import app
from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import CheckpointError, GlomerulabError, RunError
from glomerulab.evaluation.run_tables import read_run
from glomerulab.explain.explainer import Explainer
from glomerulab.inference.detector import open_detector
from glomerulab.inference.fit_calibration import fit_calibration
from glomerulab.inference.model import load_model
from glomerulab.inference.onnx_export import export_onnx
from glomerulab.models.card import SegmenterCard
from glomerulab.models.checkpoint import read_checkpoint
from glomerulab.models.segmentation import create_segmenter, save_segmenter
from glomerulab.pipeline.crossval import CrossvalSettings, cross_validate
from glomerulab.pipeline.embed import write_features
from glomerulab.pipeline.evaluate import analyse_images, predict_external_set
from glomerulab.pipeline.predict import predict
from glomerulab.runtime.sealing import SEALED_FILES, write_seal
from glomerulab.training.compare import measure_cost
from glomerulab.training.config import TrainConfig, read_config
from glomerulab.training.distill import Distillation, distill
from glomerulab.training.run import initial_network, train
from tests.support.model_runs import train_small_run
from tests.support.served_models import served, wait_for, write_slide

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("seals")]  # its fixtures are made once

SEGMENTER = SegmenterCard(
    encoder="mobilenetv3_small_100",
    structures=("tubule", "glomerulus"),
    cores=("glomerulus",),
    mpp=1.0,
    patch_px=64,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)

Attack = Callable[[Path], None]
Loader = Callable[[Path, Path], object]
"""Of the model's folder and an empty one; gives what depends on the model."""


@dataclass(frozen=True)
class Folders:
    """A model of each kind, and files of other models."""

    own: dict[str, Path]
    other: tuple[Path, ...]
    """An export and a run, which differ from the own ones in their seed, and a segmenter."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    place = tmp_path_factory.mktemp("models")
    run = train_small_run(place, epochs=1)
    base = read_config(run / "config.toml")
    other = base.model_copy(update={"seed": base.seed + 1, "out": place / "other" / "run"})
    own = _every_kind(run, base)
    fit_calibration(train(other))
    export_onnx(other.out, place / "other" / "export")
    return Folders(own, (place / "other" / "export", other.out, own["segmenter"]))


def _every_kind(run: Path, base: TrainConfig) -> dict[str, Path]:
    place = run.parent
    fit_calibration(run)
    export_onnx(run, place / "export")
    segmenter = place / "segmenter"
    save_segmenter(segmenter / "checkpoint", create_segmenter(SEGMENTER).state_dict(), SEGMENTER)
    write_seal(segmenter)
    probe = train(base.model_copy(update={"kind": "probe", "out": place / "probe"}))
    fit_calibration(probe)
    folds = cross_validate(base.model_copy(update={"out": place / "folds"}), CrossvalSettings(2))
    fit_calibration(folds)
    distilled = place / "distilled"
    distill(_distillation(str(run), distilled, base))
    return {
        "run": run,
        "export": place / "export",
        "segmenter": segmenter,
        "probe": probe,
        "cross-validation": folds,
        "distilled": distilled,
    }


def _distillation(teacher: str, out: Path, config: TrainConfig) -> Distillation:
    return Distillation(
        config.manifest, teacher, out, n_steps=1, input_size=32, batch_size=2, seed=config.seed
    )


# Loaders


def _images() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(40, 240, (48, 48, 3)).astype(np.uint8) for _ in range(2)]


def _python(folder: Path, out: Path) -> object:
    return repr(load_model(folder, fit_missing=False).predict(_images(), stain="PAS", mpp=0.5))


def _predict(folder: Path, out: Path) -> object:
    crops = _some_crops(folder, out)
    predict(crops, folder, out / "predictions")
    return (out / "predictions" / "predictions.csv").read_text()


def _some_crops(folder: Path, out: Path) -> Path:
    manifest = read_manifest(_cohort(folder))
    images = out / "crops"
    images.mkdir()
    rows = ["image_id,image_path,stain,mpp"]
    for number, path in enumerate(manifest.image_paths()[:2]):
        shutil.copy(path, images / f"{number}.png")
        rows.append(f"i{number},{number}.png,PAS,0.5")
    (images / "manifest.csv").write_text("\n".join(rows) + "\n")
    return images / "manifest.csv"


def _cohort(folder: Path) -> Path:
    """Return the manifest that the models were trained on, beside every copy."""
    return folder.parent / "manifest.csv"


def _serve(folder: Path, out: Path) -> object:
    served = load_served_model(folder, Metrics())
    served.predictor.close()
    return served.fingerprint, served.facts


def _tables(folder: Path, out: Path) -> object:
    run = read_run(folder)
    return run.predictions.to_csv(), run.manifest.table.to_csv(), run.manifest.taxonomy, run.config


def _evaluate(folder: Path, out: Path) -> object:
    found = analyse_images(folder)
    return None if found.features is None else found.features.to_csv()


def _evaluate_on(folder: Path, out: Path) -> object:
    return predict_external_set(folder, _some_crops(folder, out)).predictions.to_csv()


def _explain(folder: Path, out: Path) -> object:
    explainer = Explainer(folder)
    image = read_manifest(_cohort(folder)).image_paths()[0]
    return explainer.card, explainer.picture(image, explainer.card.labels[0].id).tobytes()


def _export(folder: Path, out: Path) -> object:
    export_onnx(folder, out / "export")
    return _python(out / "export", out)


def _start(folder: Path, out: Path) -> object:
    name = read_checkpoint(folder)[1].model
    given = {"out": out, "start.weights": str(folder), "model.name": name}
    config = read_config(_config(folder), given)
    model, card, _ = initial_network(config, read_manifest(_cohort(folder)))
    return card, {key: value.sum().item() for key, value in model.state_dict().items()}


def _config(folder: Path) -> Path:
    return folder.parent / "config.toml"


def _teach(folder: Path, out: Path) -> object:
    config = read_config(_config(folder))
    return distill(_distillation(str(folder), out / "student", config))


def _embed(folder: Path, out: Path) -> object:
    return write_features(_some_crops(folder, out), str(folder), out / "features").n_features


def _cost(folder: Path, out: Path) -> object:
    return measure_cost(folder, out / "cost.json").n_parameters


def _detect(folder: Path, out: Path) -> object:
    detector = open_detector(folder)
    image = np.zeros((1, 64, 64, 3), np.uint8)
    return detector.segmenter.card, repr(detector.segmenter.probabilities(image))


CALLS = {"python": _python, "predict": _predict, "serve": _serve}
TORCH = {"explain": _explain, "embed": _embed}
RUN = {"tables": _tables, "evaluate": _evaluate, "evaluate --on": _evaluate_on, "export": _export}
LOADERS: dict[str, dict[str, Loader]] = {
    "run": CALLS | RUN | TORCH | {"weights": _start, "teacher": _teach, "cost": _cost},
    "export": CALLS,
    "segmenter": {"detect": _detect},
    "probe": CALLS | RUN | {"explain": _explain, "cost": _cost},
    "cross-validation": CALLS | {"tables": _tables, "evaluate --on": _evaluate_on},
    "distilled": {"weights": _start, "embed": _embed},
}


# Attacks


def _files(folder: Path) -> list[str]:
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    kept = [one for one in names if not one.name.startswith(".") and one.parts[0] != "features"]
    return sorted(one.as_posix() for one in kept)


def _put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # the copies are links
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _flip(name: str, where: float) -> Attack:
    def attack(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[int(where * (len(content) - 1))] ^= 0x01
        _put(folder / name, bytes(content))

    return attack


def _truncate(name: str) -> Attack:
    return lambda folder: _put(folder / name, (folder / name).read_bytes()[:-1])


def _remove(name: str) -> Attack:
    return lambda folder: (folder / name).unlink()


def _take(name: str, other: Path) -> Attack:
    """Put a file or a folder of another model in the place of one, or beside all."""

    def attack(folder: Path) -> None:
        if (other / name).is_dir():
            shutil.rmtree(folder / name)
            shutil.copytree(other / name, folder / name)
        else:
            _put(folder / name, (other / name).read_bytes())

    return attack


def _edit(name: str, change: Callable[[dict], object]) -> Attack:
    def attack(folder: Path) -> None:
        facts = json.loads((folder / name).read_text(encoding="utf-8"))
        change(facts)
        _put(folder / name, json.dumps(facts).encode())

    return attack


def _swap_labels(facts: dict) -> None:
    facts["labels"] = facts["labels"][::-1]


EDITS: dict[str, Callable[[dict], object]] = {
    "labels swapped": _swap_labels,
    "mean": lambda facts: facts.update(mean=[0.1, 0.2, 0.3]),
    "input size": lambda facts: facts.update(input_size=2 * facts["input_size"]),
    "temperature": lambda facts: facts.update(temperature=facts["temperature"] + 1),
    "conformal threshold": lambda facts: facts.update(conformal_threshold=0.999),
    "distance threshold": lambda facts: facts.update(distance_threshold=1e9),
    "scale": lambda facts: facts.update(mpp=2 * facts["mpp"]),
    "structures": lambda facts: facts.update(structures=facts["structures"][::-1]),
    "nothing but blanks": lambda facts: None,
    "the mark": lambda facts: facts.pop("sealed", None),
}
EDITED = {
    "card.json": ("labels swapped", "mean", "input size", "nothing but blanks", "the mark"),
    "checkpoint.json": ("labels swapped", "mean", "input size", "nothing but blanks", "the mark"),
    "gates.json": (
        "temperature",
        "conformal threshold",
        "distance threshold",
        "nothing but blanks",
    ),
}
OF_SEGMENTERS = ("structures", "scale", "mean", "nothing but blanks", "the mark")


def attacks(kind: str, folders: Folders, *, is_all: bool = True) -> Iterator[tuple[str, Attack]]:
    """Yield what is done to a folder of a kind, each with its name."""
    own = folders.own[kind]
    other = folders.other[0] if kind == "export" else folders.other[1]
    for name in _files(own):
        yield f"flip in {name}", _flip(name, 0.37)
        edits = EDITED.get(Path(name).name, ())
        for edit in OF_SEGMENTERS if edits and kind == "segmenter" else edits:
            yield f"edit {name}: {edit}", _edit(name, EDITS[edit])
        if not is_all:
            continue
        yield f"flip at the start of {name}", _flip(name, 0.0)
        yield f"flip at the end of {name}", _flip(name, 1.0)
        yield f"truncate {name}", _truncate(name)
        yield f"remove {name}", _remove(name)
        if (other / name).is_file():
            yield f"take {name}", _take(name, other)
    if not is_all:
        return
    for name in ("checkpoint", "gates", "last"):
        if (own / name).is_dir() and (other / name).is_dir():
            yield f"take {name}/", _take(name, other)
    for name in SEALED_FILES:
        giver = next((one for one in folders.other if (one / name).is_file()), None)
        if giver is not None and not (own / name).is_file():
            yield f"add {name}", _take(name, giver)


def _copy(own: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(own, place, copy_function=os.link)


@pytest.mark.parametrize(
    ("kind", "loader"), [(kind, name) for kind, loaders in LOADERS.items() for name in loaders]
)
def test_a_changed_folder_is_refused_or_gives_what_it_gave(
    folders: Folders,
    tmp_path: Path,
    kind: str,
    loader: str,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    load, own = LOADERS[kind][loader], folders.own[kind]
    place = _beside_its_images(own, folders, tmp_path)

    def result() -> object:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return load(place, out)

    _copy(own, place)
    expected = result()
    unnoticed, unnamed, n_refused, n_equal = [], [], 0, 0
    is_all = load is next(iter(LOADERS[kind].values()))
    for name, attack in attacks(kind, folders, is_all=is_all):
        _copy(own, place)
        attack(place)
        try:
            found = result()
        except GlomerulabError as error:
            n_refused += 1
            if str(place) not in str(error.where):
                unnamed.append(f"{name}: {error}")
        else:
            n_equal += 1
            if found != expected:
                unnoticed.append(name)
    counts = f"{n_refused} refused, {n_equal} without influence"
    record_testsuite_property(f"{kind}, {loader}", counts)
    assert not unnoticed
    assert not unnamed
    assert n_refused >= 10


def _beside_its_images(own: Path, folders: Folders, place: Path) -> Path:
    """Copy what lies beside a model, and return where to put the model."""
    cohort = folders.own["run"].parent
    for source in (cohort / "manifest.csv", folders.own["run"] / "config.toml"):
        shutil.copy(source, place)
    for picture in cohort.glob("*.png"):
        os.link(picture, place / picture.name)
    return place / own.name


@pytest.mark.parametrize("kind", ["run", "probe", "cross-validation"])
def test_calibrating_again_mends_the_calibration_and_nothing_else(
    folders: Folders, tmp_path: Path, kind: str
) -> None:
    own = folders.own[kind]
    place = _beside_its_images(own, folders, tmp_path)
    expected = load_model(own).fingerprint
    n_mended, refused = 0, {}
    for name, attack in attacks(kind, folders, is_all=kind == "run"):
        if "seal.json" in name:
            continue
        _copy(own, place)
        attack(place)
        try:
            fit_calibration(place)
        except GlomerulabError as error:
            refused[name] = str(error.where)
        else:
            n_mended += 1
            assert load_model(place, fit_missing=False).fingerprint == expected, name
    assert all(str(place) in where for where in refused.values())
    assert not [name for name in refused if "gates/" in name]
    assert n_mended > 4


def test_a_model_that_lost_its_seal_is_refused_by_each_loader(
    folders: Folders, tmp_path: Path
) -> None:
    for kind, loaders in LOADERS.items():
        for name in loaders.keys() - {"tables", "evaluate"}:
            folder = tmp_path / f"{kind} {name}"
            folder.mkdir()
            place = _beside_its_images(folders.own[kind], folders, folder)
            _copy(folders.own[kind], place)
            for seal in place.rglob("seal.json"):
                seal.unlink()
            (folder / "out").mkdir()
            with pytest.raises(RunError):
                loaders[name](place, folder / "out")


def test_a_run_that_changes_while_it_is_served_is_served_as_it_was(
    folders: Folders, tmp_path: Path
) -> None:
    own, other = folders.own["run"], folders.other[1]
    place = _beside_its_images(own, folders, tmp_path)
    _copy(own, place)
    write_slide(tmp_path / "slides")
    crop = (own.parent / "0.png").read_bytes()
    body = {"slides": [{"path": "s1.tif", "stain": "PAS"}], "regions": "s1.geojson"}
    with served(place, tmp_path, with_slides=True) as server, server.client() as client:
        before = client.post("/v1/crops?stain=PAS", content=crop).json()
        first = wait_for(client.post("/v1/jobs", json=body).json()["id"], client, "done", "failed")
        shutil.rmtree(place)
        shutil.copytree(other, place)  # complete, sealed, and another model
        after = client.post("/v1/crops?stain=PAS", content=crop).json()
        second = wait_for(client.post("/v1/jobs", json=body).json()["id"], client, "failed", "done")
    assert len(before["labels"]) == 4
    assert after == before
    assert first["state"] == "done", first
    assert second["state"] == "failed"
    assert "restart the server" in second["error"]


def test_weights_outside_an_exported_file_are_not_read(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(folders.own["export"], tmp_path / "export"))
    model = onnx.load(place / "model.onnx")
    onnx.save(model, place / "model.onnx", save_as_external_data=True, location="model.data")
    write_seal(place)
    monkeypatch.chdir(place)
    with pytest.raises(CheckpointError, match="ONNX Runtime cannot load"):
        load_model(place)


@pytest.mark.parametrize("command", ["predict", "evaluate", "export", "explain", "serve", "gates"])
def test_every_command_names_the_changed_file(
    folders: Folders, tmp_path: Path, command: str
) -> None:
    place = _beside_its_images(folders.own["run"], folders, tmp_path)
    _copy(folders.own["run"], place)
    _edit("checkpoint/checkpoint.json", _swap_labels)(place)
    crops, out = tmp_path / "manifest.csv", tmp_path / "predictions"
    arguments: dict[str, tuple[object, ...]] = {
        "predict": (crops, "--model", place, "--out", out),
        "explain": (place, crops),
        "serve": ("--model", place, "--port", 0),
    }
    given = arguments.get(command, (place,))
    done = CliRunner().invoke(app, [command, *map(str, given)])
    assert isinstance(done.exception, RunError)
    assert "checkpoint/checkpoint.json changed" in done.exception.message
    assert not out.exists()
