"""Cross-validations of 36 tiny images: real trainings of an epoch each."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tomli_w
from scipy.special import softmax

from glomerulab.apps.serve.metrics import Metrics
from glomerulab.apps.serve.service import load_served_model
from glomerulab.cohort.manifest import Manifest, manifest_from_rows, read_manifest, write_manifest
from glomerulab.errors import (
    CheckpointError,
    ConfigError,
    LeakageError,
    OutputError,
    RunError,
    StainError,
    TrainingError,
)
from glomerulab.evaluation.run_tables import read_run
from glomerulab.explain.explainer import Explainer
from glomerulab.images import read_image, write_image
from glomerulab.inference.engines.base import stack_images
from glomerulab.inference.engines.torch_engine import TorchEngine
from glomerulab.inference.model import load_model
from glomerulab.inference.onnx_export import export_onnx
from glomerulab.pipeline.crossval import CrossvalSettings, compare_by_folds, cross_validate
from glomerulab.pipeline.evaluate import analyse_images, predict_external_set
from glomerulab.pipeline.normalize import normalize_manifest
from glomerulab.predictions import read_predictions
from glomerulab.reports.run.comparison import write_comparison
from glomerulab.reports.run.report import write_run_report
from glomerulab.stain.fitting import fit
from glomerulab.taxonomy import Label, Taxonomy
from glomerulab.training.compare import CompareConfig
from glomerulab.training.config import TrainConfig, write_config
from glomerulab.training.run import train
from tests.support.beer_lambert import section

TAXONOMY = Taxonomy("colours", (Label(id="pink", name="Pink"), Label(id="blue", name="Blue")))


@pytest.fixture
def config(tmp_path: Path, rng: np.random.Generator) -> TrainConfig:
    rows = []
    for number in range(36):
        pink = number % 2
        colour = (230, 120, 170) if pink else (90, 110, 220)
        image = np.clip(rng.normal(colour, 25, (40, 40, 3)), 0, 255).astype(np.uint8)
        write_image(image, tmp_path / f"{number}.png")
        rows.append(
            {"image_id": f"i{number}", "image_path": f"{number}.png", "mpp": 0.5, "synthetic": 1}
            | {"patient_id": f"p{number // 3}", "site": f"s{number // 12}"}
            | {"pink": pink, "blue": 1 - pink}
        )
    manifest = manifest_from_rows(pd.DataFrame(rows), folder=tmp_path, taxonomy=TAXONOMY)
    write_manifest(manifest, tmp_path / "manifest.csv")
    return TrainConfig.model_validate(
        {
            "manifest": tmp_path / "manifest.csv",
            "out": tmp_path / "cv",
            "epochs": 1,
            "batch_size": 8,
            "precision": "float32",
            "augmentation": False,
            "model": {"name": "improved_seresnet_small", "input_size": 32},
            "optimizer": {"learning_rate": 3e-3},
        }
    )


def test_each_image_is_predicted_by_the_model_that_did_not_see_its_patient(
    config: TrainConfig,
) -> None:
    folder = cross_validate(config, CrossvalSettings(folds=3))
    pooled = read_run(folder)
    assert pooled.is_sealed
    assert pooled.predictions["image_id"].tolist() == [f"i{n}" for n in range(36)]
    for run in sorted((folder / "runs").iterdir()):
        split = read_manifest(run / "manifest.csv").table
        patients = {part: set(rows["patient_id"]) for part, rows in split.groupby("split")}
        assert patients["test"].isdisjoint(patients["train"] | patients["validation"])
        own = read_predictions(run / "predictions.csv", TAXONOMY)
        held_out = own[own["split"] == "test"].set_index("image_id")
        same = pooled.predictions.set_index("image_id").loc[held_out.index]
        assert np.array_equal(held_out["probability_pink"], same["probability_pink"])


def test_an_interrupted_cross_validation_continues_to_the_same_bytes(config: TrainConfig) -> None:
    whole = cross_validate(config, CrossvalSettings(folds=2))
    stopped = config.model_copy(update={"out": config.out.with_name("stopped")})

    class StopError(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("fold 2"):
            raise StopError

    with pytest.raises(StopError):
        cross_validate(stopped, CrossvalSettings(folds=2), echo=stop)
    assert not (stopped.out / "predictions.csv").exists()
    first = stopped.out / "runs" / "repeat-1-fold-0" / "seal.json"
    trained = first.stat().st_mtime_ns
    again = cross_validate(stopped, CrossvalSettings(folds=2))
    assert first.stat().st_mtime_ns == trained
    for name in ("predictions.csv", "manifest.csv"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    with pytest.raises(OutputError, match="folds"):
        cross_validate(stopped, CrossvalSettings(folds=3))


def test_repeats_are_averaged_and_their_spread_is_reported(config: TrainConfig) -> None:
    folder = cross_validate(config, CrossvalSettings(folds=2, repeats=2))
    report = write_run_report(folder)
    run, result = report.result.run, report.result
    assert len(run.repeats) == 1
    accuracies = [
        float(((table["probability_pink"] > 0.5) == (table["label_pink"] == 1)).mean())
        for table in (run.predictions, *run.repeats)
    ]
    overall = result.scores[result.scores["label"].isna()].set_index("score")
    assert overall.loc["accuracy", "value"] == pytest.approx(np.mean(accuracies))
    spread = result.fold_variation.set_index("score")
    assert spread.loc["accuracy", "sd_of_repeats"] == pytest.approx(np.std(accuracies, ddof=1))
    folds = pd.read_csv(folder / "folds.csv")
    assert folds[["repeat", "fold"]].to_numpy().tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]
    assert folds["n_images"].sum() == 72
    page = report.html_path.read_text(encoding="utf-8")
    assert "Over folds and repeats" in page
    written = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert written["fitted_on_validation"]["by_fold"]
    stored = {one["score"]: one for one in written["fold_variation"]}
    assert stored["accuracy"]["mean_of_repeats"] == pytest.approx(np.mean(accuracies))
    assert "Split by image" not in page


def test_whole_sites_are_held_out(config: TrainConfig) -> None:
    folder = cross_validate(config, CrossvalSettings(group="site"))
    table = read_run(folder).manifest.table
    assert table.groupby("site")["fold"].nunique().tolist() == [1, 1, 1]
    assert table["fold"].nunique() == 3
    with pytest.raises(ConfigError, match="--folds"):
        cross_validate(config, CrossvalSettings(group="site", repeats=2))


def test_the_folds_of_the_manifest_are_used_and_its_test_part_stays_unseen(
    config: TrainConfig,
) -> None:
    manifest = read_manifest(config.manifest)
    number = np.arange(36) // 3
    table = manifest.table.assign(
        fold=pd.array(np.where(number < 10, number % 2, -1), dtype="Int64"),
        split=pd.array(["test" if n >= 10 else None for n in number], dtype="string"),
    )
    table.loc[table["fold"] == -1, "fold"] = pd.NA
    write_manifest(manifest.with_table(table), config.manifest)
    lines: list[str] = []
    run = read_run(cross_validate(config, echo=lines.append))
    assert run.manifest.table["image_id"].tolist() == [f"i{n}" for n in range(30)]
    assert run.manifest.table["fold"].tolist() == [n // 3 % 2 for n in range(30)]
    assert any("6 images of the test part" in line for line in lines)


def test_settings_are_chosen_inside_each_fold(config: TrainConfig, tmp_path: Path) -> None:
    nested = {"train": "x.toml", "out": "x", "n_trials": 2, "sampler": "grid"}
    nested["storage"] = f"sqlite:///{tmp_path / 'shared.db'}"
    nested |= {"space": {"optimizer.learning_rate": [1e-4, 1e-2]}}
    write_config(config, tmp_path / "x.toml")
    (tmp_path / "search.toml").write_text(tomli_w.dumps(nested), encoding="utf-8")
    settings = CrossvalSettings(folds=2, nested=tmp_path / "search.toml")
    folder = cross_validate(config, settings)
    for name in ("repeat-1-fold-0", "repeat-1-fold-1"):
        held_out = set(
            read_manifest(folder / "runs" / name / "manifest.csv").part("test").table["image_id"]
        )
        seen = set(read_manifest(folder / "searches" / name / "manifest.csv").table["image_id"])
        assert held_out
        assert held_out.isdisjoint(seen)
        assert len(pd.read_csv(folder / "searches" / name / "trials.csv")) == 2


def test_models_are_compared_on_the_same_folds(config: TrainConfig) -> None:
    write_config(config, config.manifest.parent / "train.toml")
    comparison = CompareConfig(
        train=config.manifest.parent / "train.toml",
        out=config.manifest.parent / "comparison",
        models={"small": {}, "probe": {"kind": "probe"}},
    )
    trained = compare_by_folds(comparison, CrossvalSettings(folds=2, repeats=2))
    folds = [read_run(run).manifest.table["fold"].tolist() for run in trained.runs.values()]
    assert folds[0] == folds[1]
    report = write_comparison(list(trained.runs.values()), comparison.out, costs=trained.costs)
    (pair,) = report.comparisons
    runs = [read_run(run) for run in trained.runs.values()]
    right = [
        np.mean(
            [
                (t["probability_pink"] > 0.5) == (t["label_pink"] == 1)
                for t in (run.predictions, *run.repeats)
            ]
        )
        for run in runs
    ]
    assert pair.difference == pytest.approx(right[0] - right[1])
    assert pair.low <= pair.difference <= pair.high
    page = report.html_path.read_text(encoding="utf-8")
    assert "of the first" in page
    assert "no epochs" in page


def stained(config: TrainConfig) -> Manifest:
    """Replace the images by two-stain ones of different strength."""
    manifest = read_manifest(config.manifest)
    for seed, path in enumerate(manifest.image_paths()):
        strength = 0.7 + 0.6 * (seed % 5) / 4
        write_image(section(seed, size=64, strength=(strength, strength)).image, path)
    count = len(manifest.table)
    stain = pd.array(["HE"] * count, dtype="string")
    new = manifest.with_table(
        manifest.table.assign(stain=stain, slide_id=manifest.table["patient_id"])
    )
    write_manifest(new, config.manifest)
    return new


def test_the_stain_target_of_a_fold_comes_from_its_training_part(config: TrainConfig) -> None:
    stained(config)
    folder = cross_validate(config, CrossvalSettings(folds=2, normalize=True))
    for name in ("repeat-1-fold-0", "repeat-1-fold-1"):
        table = read_manifest(folder / "folds" / f"{name}.csv").table
        held_out = {Path(path).name for path in table.loc[table["split"] != "train", "image_path"]}
        (target,) = (folder / "normalized" / name / "targets").glob("*.json")
        text = target.read_text(encoding="utf-8")
        assert "png" in text
        assert not any(f"/{one}" in text for one in held_out)
        used = read_manifest(folder / "runs" / name / "manifest.csv").table
        assert set(used["stain_status"]) <= {"normalized", "slide_stains"}


def test_images_without_slides_are_normalised_each_by_itself(config: TrainConfig) -> None:
    manifest = stained(config)
    write_manifest(manifest.with_table(manifest.table.drop(columns="slide_id")), config.manifest)
    folder = cross_validate(config, CrossvalSettings(folds=2, normalize=True))
    for name in ("repeat-1-fold-0", "repeat-1-fold-1"):
        used = read_manifest(folder / "runs" / name / "manifest.csv").table
        assert set(used["stain_status"]) <= {"normalized", "slide_stains"}


def test_images_normalised_to_a_held_out_target_are_refused(config: TrainConfig) -> None:
    manifest = stained(config)
    path = manifest.image_paths()[0]
    target = fit(read_image(path), "HE", source="i0")
    done = normalize_manifest(manifest, {"HE": target}, config.out.with_name("normalized"))
    of_normalised = config.model_copy(update={"manifest": done.path})
    with pytest.raises(LeakageError, match="--normalize"):
        cross_validate(of_normalised, CrossvalSettings(folds=2))
    with pytest.raises(StainError, match="originals"):
        cross_validate(of_normalised, CrossvalSettings(folds=2, normalize=True))
    assert not config.out.exists()


def test_every_target_of_a_stain_is_checked(config: TrainConfig) -> None:
    """Half of the images was normalised elsewhere; the second target is of the cohort."""
    manifest = stained(config)
    images = manifest.image_paths()
    foreign = config.out.with_name("foreign.png")
    write_image(section(99, size=64).image, foreign)
    halves = []
    for number, source in enumerate((foreign, images[0])):
        half = manifest.with_table(manifest.table.iloc[number::2].reset_index(drop=True))
        target = fit(read_image(source), "HE", source=str(source))
        out = config.out.with_name(f"half-{number}")
        done = normalize_manifest(half, {"HE": target}, out).manifest
        halves.append(done.table.assign(image_path=[str(path) for path in done.image_paths()]))
    both = manifest.with_table(pd.concat(halves, ignore_index=True))
    path = config.manifest.with_name("both.csv")
    write_manifest(both, path)
    with pytest.raises(LeakageError, match="--normalize"):
        cross_validate(config.model_copy(update={"manifest": path}), CrossvalSettings(folds=2))


def test_nothing_to_normalise_is_told(config: TrainConfig) -> None:
    with pytest.raises(StainError, match="stain"):
        cross_validate(config, CrossvalSettings(folds=2, normalize=True))


def test_a_cross_validated_folder_predicts_as_an_ensemble(config: TrainConfig) -> None:
    folder = cross_validate(config, CrossvalSettings(folds=3))
    model = load_model(folder)
    images = [read_image(path) for path in read_manifest(config.manifest).image_paths()[:4]]
    pixels = stack_images(images, model.card.input_size)
    members = [TorchEngine(run).predict(pixels) for run in sorted((folder / "runs").iterdir())]
    expected = np.mean([softmax(one.logits, axis=1) for one in members], axis=0)
    found = softmax(model.engine.predict(pixels).logits, axis=1)
    assert np.allclose(found, expected, atol=1e-6)
    decisions = model.predict(images, stain="HE", mpp=0.5)
    assert len(decisions) == 4
    assert model.calibration.facts.n_validation == 36
    shutil.rmtree(folder / "runs" / "repeat-1-fold-1")
    with pytest.raises(RunError, match="repeat-1-fold-1") as caught:
        load_model(folder)
    assert caught.value.where.startswith(str(folder))


def test_a_cross_validation_is_evaluated_as_a_run_is(config: TrainConfig) -> None:
    manifest = read_manifest(config.manifest)
    paths = manifest.image_paths()
    rng = np.random.default_rng(3)
    texture = np.clip(rng.normal(140, 60, (40, 40, 3)), 0, 255).astype(np.uint8)
    for path in (paths[0], paths[35]):  # one image under two patients
        write_image(texture, path)
    folder = cross_validate(config, CrossvalSettings(folds=4))
    images = analyse_images(folder)
    page = write_run_report(folder, images=images).html_path.read_text(encoding="utf-8")
    assert "Cross-validation of cv" in page
    folds = read_run(folder).manifest.table["fold"]
    assert (len(images.near_duplicates or ()) == 1) == (folds[0] != folds[35])
    external = predict_external_set(folder, config.manifest)
    assert external.predictions["image_id"].tolist() == [f"i{n}" for n in range(36)]
    for needs_one in (lambda: export_onnx(folder, folder / "onnx"), lambda: Explainer(folder)):
        with pytest.raises(CheckpointError, match="cross-validation"):
            needs_one()


def test_a_changed_file_of_any_repeat_or_fold_is_found_and_an_external_set_has_none(
    config: TrainConfig,
) -> None:
    folder = cross_validate(config, CrossvalSettings(folds=2, repeats=2))
    external = predict_external_set(folder, config.manifest)
    report = write_run_report(folder, external=external)
    assert report.external is not None
    assert report.external.result.eval_set.n_images == 36
    load_model(folder)
    served = load_served_model(folder, Metrics())
    assert served.overlays is None
    repeat = folder / "predictions-repeat-2.csv"
    text = repeat.read_text(encoding="utf-8")
    repeat.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(RunError, match="predictions-repeat-2"):
        read_run(folder)
    repeat.write_text(text, encoding="utf-8")
    inner = folder / "runs" / "repeat-2-fold-1" / "checkpoint" / "checkpoint.json"
    inner.write_text(inner.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(RunError, match="checkpoint"):
        load_model(folder)


def test_an_interrupted_cross_validation_is_no_model_and_no_run(config: TrainConfig) -> None:
    def stop(line: str) -> None:
        if line.startswith("fold 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cross_validate(config, CrossvalSettings(folds=2), echo=stop)
    for use in (load_model, read_run):
        with pytest.raises(RunError, match="not complete"):
            use(config.out)
    with pytest.raises(OutputError, match="cross-validation"):
        train(
            config.model_copy(update={"manifest": config.out / "folds" / "repeat-1-fold-0.csv"}),
            resume=True,
        )


def test_the_folder_of_a_training_is_not_taken_for_a_cross_validation(config: TrainConfig) -> None:
    folder = cross_validate(config, CrossvalSettings(folds=2))
    run = folder / "runs" / "repeat-1-fold-0"
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(OutputError, match="train"):
        cross_validate(config.model_copy(update={"out": run}), CrossvalSettings(folds=2))
    assert sorted(path.name for path in run.iterdir()) == before


def changed_manifest(config: TrainConfig, **columns: object) -> None:
    manifest = read_manifest(config.manifest)
    write_manifest(manifest.with_table(manifest.table.assign(**columns)), config.manifest)


def test_a_label_that_a_validation_part_takes_stops_before_the_first_fold(
    config: TrainConfig,
) -> None:
    few = (np.arange(36) < 6).astype(int)  # of two patients
    changed_manifest(config, pink=pd.array(few), blue=pd.array(1 - few))
    validated = config.model_copy(update={"keep": "best"})
    with pytest.raises(TrainingError, match="pink"):
        cross_validate(validated, CrossvalSettings(folds=2, validation_share=0.9))
    assert not config.out.exists()


def test_a_patient_in_several_given_folds_stops_before_the_first_fold(config: TrainConfig) -> None:
    changed_manifest(config, fold=pd.array(np.arange(36) // 2 % 2, dtype="Int64"))
    with pytest.raises(LeakageError, match="fold-0"):
        cross_validate(config)
    assert not config.out.exists()
