"""Every reader of a file that a user can hand in, each with small files of our own to damage.

``python -m tests.support.fuzz_readers CORPUS READER START STOP`` reads damaged copies in this
process and prints one line of JSON before and after each.
"""

import json
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from glomerulab.errors import GlomerulabError
from tests.support.mutations import mutated
from tests.support.segmenters import write_segmenter

__all__ = ["MAX_BYTES", "MAX_CPU_S", "READERS", "write_corpus"]

MAX_CPU_S = 5
MAX_BYTES = 1 << 30
SLACK_BYTES = 1 << 29
"""Address space that threads and allocators reserve and do not use."""


@dataclass(frozen=True)
class Reader:
    """A way to read a folder of the corpus, and the files in it that are damaged."""

    folder: str
    """In the corpus; copied for each input, so that a reader may write into it."""
    files: tuple[str, ...]
    read: Callable[[Path], object]
    allowed: tuple[type[Exception], ...] = ()
    """Documented errors beside `GlomerulabError`."""


# Readers: each imports what it needs, so that a process loads one program.


def _manifest(folder: Path, name: str = "manifest.csv") -> None:
    from glomerulab.cohort.leakage import find_leaks
    from glomerulab.cohort.manifest import read_manifest, write_manifest
    from glomerulab.cohort.splits import split_by_patient
    from glomerulab.cohort.validation import validate_manifest

    manifest = read_manifest(folder / name)
    validate_manifest(manifest)
    find_leaks(manifest)
    write_manifest(manifest, folder / "again.csv")
    split_by_patient(manifest, seed=1)


def _parquet(folder: Path) -> None:
    _manifest(folder, "manifest.parquet")


def _taxonomy(folder: Path) -> None:
    from glomerulab.cohort.manifest import read_manifest
    from glomerulab.taxonomy import load_taxonomy, write_taxonomy

    write_taxonomy(load_taxonomy(folder / "taxonomy.toml"), folder / "again.toml")
    read_manifest(folder / "manifest.csv")


def _slides_table(folder: Path) -> None:
    from glomerulab.cohort.slides_table import read_slides

    read_slides(folder / "slides.csv")


def _import_csv(folder: Path) -> None:
    from glomerulab.cohort.import_csv import ColumnMapping, import_csv
    from glomerulab.cohort.manifest import write_manifest
    from glomerulab.taxonomy import load_taxonomy

    mapping = ColumnMapping({}, label_column="lesion", classes={"crescent": "cgn"})
    for one in (mapping, ColumnMapping({})):
        manifest = import_csv(folder / "labels.csv", one, load_taxonomy("paper"))
        write_manifest(manifest, folder / "again.csv")


def _paper_labels(folder: Path) -> None:
    from glomerulab.cohort.paper_labels import import_paper_labels, write_paper_labels
    from glomerulab.taxonomy import load_taxonomy

    manifest = import_paper_labels(folder / "labels.json", load_taxonomy("paper"))
    write_paper_labels(manifest, folder / "again.json")


def _allowed_pairs(folder: Path) -> None:
    from glomerulab.cohort.near_duplicates import read_allowed_pairs

    read_allowed_pairs(folder / "pairs.csv")


def _regions(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from glomerulab.slides.regions.features import RegionOptions, SlideFrame
        from glomerulab.slides.regions.files import read_regions, write_regions

        frame = SlideFrame((1000, 800), (10.0, 20.0), (0.5, 0.5))
        found = read_regions(
            folder / name, frame=frame, options=RegionOptions(), slide_id="s1", invalid=[]
        )
        write_regions(found, folder / "again.geojson")
        [region.box() for region in found]

    return read


def _scores(folder: Path) -> None:
    from glomerulab.slides.regions.proposals import read_scores

    read_scores(folder / "proposals.geojson", made_by={"run": "detector"})


def _case(folder: Path) -> None:
    from glomerulab.reports.case.write import write_case_reports

    formats = ("csv", "geojson", "fhir")
    write_case_reports(folder, folder / "reports", formats=formats)


def _corrections(folder: Path) -> None:
    from glomerulab.cases.case_folder import read_case_folder
    from glomerulab.cases.corrections import add_correction, import_corrections, read_corrections

    case = read_case_folder(folder)
    read_corrections(case)
    import_corrections(case, folder / "new.csv")
    add_correction(case, case.calls[0].image_id, labels=["normal"], by="x", reason="y")
    read_corrections(case)


def _rules(folder: Path) -> None:
    from glomerulab.cases.case import build_cases
    from glomerulab.cases.case_folder import read_case_folder
    from glomerulab.cases.rules import load_rule_set

    build_cases(read_case_folder(folder), [load_rule_set(folder / "rules.toml")])


def _train_config(folder: Path) -> None:
    from glomerulab.training.compare import read_compare_config
    from glomerulab.training.config import read_config, write_config
    from glomerulab.training.search import read_search_config

    failure: GlomerulabError | None = None
    for read, name in (
        (read_config, "train.toml"),
        (read_compare_config, "compare.toml"),
        (read_search_config, "search.toml"),
        (lambda path: read_config(path, {"model.name": "lite0", "seed": 3}), "train.toml"),
    ):
        try:
            config = read(folder / name)
            if name == "train.toml":
                write_config(config, folder / "again.toml")
        except GlomerulabError as error:
            failure = error
    if failure is not None:
        raise failure


def _keys(folder: Path) -> None:
    from glomerulab.apps.serve.auth import add_key, read_keys, revoke_key

    path = folder / "keys.json"
    read_keys(path)
    add_key(path, "ward 9")
    revoke_key(path, "ward 9")


def _run(folder: Path) -> None:
    from glomerulab.evaluation.run_tables import read_run

    read_run(folder / "run")


def _checkpoint(folder: Path) -> None:
    from glomerulab.models.checkpoint import load_checkpoint
    from glomerulab.training.start import read_start

    read_start(folder / "run")
    load_checkpoint(folder / "run")


def _resealed(folder: Path) -> None:
    """Read damaged tensors below a hash that was written anew."""
    import hashlib

    from glomerulab.models.checkpoint import load_checkpoint

    (tensors,) = (folder / "run" / "checkpoint").glob("*.safetensors")
    facts = folder / "run" / "checkpoint" / "checkpoint.json"
    content = json.loads(facts.read_text())
    content["tensors_sha256"] = hashlib.sha256(tensors.read_bytes()).hexdigest()
    facts.write_text(json.dumps(content))
    load_checkpoint(folder / "run")


def _calibration(folder: Path) -> None:
    from glomerulab.inference.calibration import read_calibration

    read_calibration(folder / "run")


def _model(folder: Path) -> None:
    import numpy as np

    from glomerulab.inference.model import load_model

    model = load_model(folder / "export", fit_missing=False)
    model.predict(np.zeros((1, 48, 48, 3), dtype=np.uint8))


def _detector(folder: Path) -> None:
    from glomerulab.inference.detector import open_detector

    open_detector(folder / "segmenter")


def _weights(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from torch import nn

        from glomerulab.models.transfer.weight_files import read_weights

        read_weights(folder / name, nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))

    return read


def _published(folder: Path) -> None:
    from glomerulab.models.transfer.published import find_published, origin_lines

    origin_lines(find_published(str(folder)).origin)


def _state(folder: Path) -> None:
    import torch
    from torch import nn

    from glomerulab.training.state import TrainingState, load_state

    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    load_state(folder / "state", TrainingState(model, optimizer, []))


def _features(folder: Path) -> None:
    from glomerulab.training.features import _stored

    list(_stored(folder))


def _records(folder: Path) -> None:
    """Read the small JSON files that steps leave beside their results."""
    from glomerulab.apps.serve.job_records import JobFolder
    from glomerulab.runtime.resume import JsonLines, SettingsFile
    from glomerulab.runtime.sealing import check_seal, crossval_runs
    from glomerulab.training.compare import measure_cost
    from glomerulab.training.start import read_start

    JsonLines(folder / "answers.jsonl").read()
    job = JobFolder(folder)
    job.read_outcome()
    failure: GlomerulabError | None = None
    for read in (
        lambda: _refused(
            lambda: SettingsFile(folder / "extract.json").continue_or_refuse({"mpp": 0.5})
        ),
        # The corpus has none of its runs, and a folder without any is of another run.
        lambda: _refused(lambda: crossval_runs(folder)),
        lambda: check_seal(folder),
        lambda: read_start(folder),
        lambda: measure_cost(folder, folder / "cost.json"),
    ):
        try:
            read()
        except GlomerulabError as error:
            failure = error
    if failure is not None:
        raise failure


def _refused(read: Callable[[], object]) -> None:
    with suppress(GlomerulabError):
        read()


def _cached_predictions(folder: Path) -> None:
    from glomerulab.inference.image_predictions import _read_cache
    from glomerulab.runtime.resume import JsonLines

    _read_cache(JsonLines(folder / "answers.jsonl"), "ab")


def _study(folder: Path) -> None:
    from glomerulab.apps.annotation.exports import final_manifest
    from glomerulab.apps.annotation.store.accounts import check_password, list_accounts
    from glomerulab.apps.annotation.store.adjudications import list_image_readings
    from glomerulab.apps.annotation.store.annotations import list_annotations, list_items
    from glomerulab.apps.annotation.store.database import open_store
    from glomerulab.apps.annotation.store.ledger import iterate_events, verify_store
    from glomerulab.apps.annotation.store.regions import list_regions
    from glomerulab.apps.annotation.store.study import read_study

    def readings(store) -> None:
        final_manifest(list_image_readings(store, by="owner"), read_study(store))

    failure: GlomerulabError | None = None
    with open_store(folder / "study.db") as store:
        for use in (
            verify_store,
            read_study,
            readings,
            list_accounts,
            lambda one: list(iterate_events(one)),
            lambda one: list_annotations(one, by="owner", every_version=True),
            lambda one: list_items(one, "anna"),
            lambda one: list_regions(one, login="anna"),
            lambda one: check_password(one, login="anna", password="x"),
        ):
            try:
                use(store)
            except GlomerulabError as error:
                failure = error
    if failure is not None:
        raise failure


def _image(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from glomerulab.images import read_image

        read_image(folder / name)

    return read


def _slide(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from glomerulab.geometry import Box
        from glomerulab.slides.files import dicom_reference, find_slides
        from glomerulab.slides.slide import open_slide

        find_slides(folder / name)
        dicom_reference(folder / name)
        with open_slide(folder / name) as slide:
            slide.thumbnail(64)
            slide.read_region(Box(10, 10, 64, 64), mpp=2.0)

    return read


def _deidentified(folder: Path) -> None:
    from glomerulab.slides.deidentify import deidentify

    deidentify(folder / "slide.svs", folder / "copy.svs")


def _mask(folder: Path) -> None:
    from glomerulab.explain.explainer import read_mask

    read_mask(folder / "mask.png", 48)


def _reference(folder: Path) -> None:
    import numpy as np

    from glomerulab.stain.normalize import normalize
    from glomerulab.stain.reference import read_reference

    image = np.random.default_rng(1).integers(90, 250, (48, 48, 3), dtype=np.uint8)
    normalize(image, read_reference(folder / "reference.json"))


def _predictions_of_others(folder: Path) -> None:
    from glomerulab.evaluation.prediction_files import read_prediction_file

    for truth in (None, folder / "truth.csv"):
        read_prediction_file(folder / "answers.csv", out=folder / "out", truth=truth)


def _search(folder: Path) -> None:
    from glomerulab.training.search import _open_study, read_search_config, trials_table

    config = read_search_config(folder / "search.toml", {"out": str(folder)})
    with _open_study(config) as study:
        trials_table(study)


def _outlines(folder: Path) -> None:
    from glomerulab.reports.case.write import write_case_reports

    write_case_reports(
        folder / "case", folder / "reports", formats="csv", structures=folder / "outlines"
    )


def _cohort(folder: Path) -> None:
    from glomerulab.pipeline.cohort_folder import CohortFolder
    from glomerulab.pipeline.cohort_merge import count_states, failed_cases, merge_cohort

    cohort = CohortFolder(folder)
    count_states(cohort)
    list(failed_cases(cohort))
    merge_cohort(folder)


def _cluster_file(folder: Path) -> None:
    from glomerulab.runtime.cluster import read_cluster_file

    read_cluster_file(folder / "cluster.toml")


def _fields(folder: Path) -> None:
    """Read what a segmenter is trained on."""
    from glomerulab.training.segmentation.config import (
        read_segmenter_config,
        write_segmenter_config,
    )
    from glomerulab.training.segmentation.sets import open_fields

    config = read_segmenter_config(folder / "segmenter.toml", {"out": str(folder / "out")})
    write_segmenter_config(config, folder / "again.toml")
    open_fields(config)


CASE_FILES = ("case.json", "case.json", "predictions.csv", "predictions.csv")
RUN_TABLES = ("config.toml", "manifest.csv", "taxonomy.toml", "history.csv", "environment.json")

READERS: dict[str, Reader] = {
    "manifest CSV": Reader("cohort", ("manifest.csv",), _manifest),
    "manifest Parquet": Reader("cohort", ("manifest.parquet",), _parquet),
    "taxonomy": Reader("cohort", ("taxonomy.toml",), _taxonomy),
    "table of slides": Reader("tables", ("slides.csv",), _slides_table),
    "table to import": Reader("tables", ("labels.csv",), _import_csv),
    "label JSON": Reader("tables", ("labels.json",), _paper_labels),
    "allowed pairs": Reader("tables", ("pairs.csv",), _allowed_pairs),
    "regions GeoJSON": Reader("regions", ("r.geojson",), _regions("r.geojson")),
    "regions QuPath": Reader("regions", ("qupath.geojson",), _regions("qupath.geojson")),
    "regions gzip": Reader("regions", ("z.geojson.gz",), _regions("z.geojson.gz")),
    "regions ImageScope": Reader("regions", ("imagescope.xml",), _regions("imagescope.xml")),
    "regions ASAP": Reader("regions", ("asap.xml",), _regions("asap.xml")),
    "regions COCO": Reader("regions", ("coco.json",), _regions("coco.json")),
    "regions CSV": Reader("regions", ("r.csv",), _regions("r.csv")),
    "proposals": Reader("regions", ("proposals.geojson",), _scores),
    "case folder": Reader("case", CASE_FILES, _case),
    "record of reports": Reader("case", ("reports/reports.json",), _case),
    "corrections": Reader(
        "case", ("overrides.csv", "new.csv", "overrides.record.jsonl"), _corrections
    ),
    "rule set": Reader("case", ("rules.toml",), _rules),
    "configurations": Reader(
        "configurations", ("train.toml", "compare.toml", "search.toml"), _train_config
    ),
    "API keys": Reader("tables", ("keys.json",), _keys),
    "run tables": Reader(
        "run_tables", tuple(f"run/{name}" for name in (*RUN_TABLES, "predictions.csv")), _run
    ),
    "checkpoint": Reader(
        "model",
        ("run/checkpoint/checkpoint.json", "run/checkpoint/*.safetensors", "run/start.json"),
        _checkpoint,
    ),
    "checkpoint, hash renewed": Reader("model", ("run/checkpoint/*.safetensors",), _resealed),
    "calibration": Reader("model", ("run/gates/*.json", "run/gates/*.safetensors"), _calibration),
    "exported model": Reader(
        "model",
        ("export/card.json", "export/model.onnx", "export/gates/*.json"),
        _model,
    ),
    "segmenter of another project": Reader(
        "model", ("segmenter/segmenter.toml", "segmenter/model.onnx"), _detector
    ),
    "weights .safetensors": Reader("weights", ("w.safetensors",), _weights("w.safetensors")),
    "weights .pth": Reader("weights", ("w.pth",), _weights("w.pth")),
    "weights .pth, old": Reader("weights", ("old.pth",), _weights("old.pth")),
    "published network": Reader(
        "published", ("config.json", "model.safetensors", "README.md"), _published
    ),
    "training state": Reader("state", ("state/*.json", "state/*.safetensors"), _state),
    "features Parquet": Reader("features", ("part-*.parquet",), _features),
    "records of steps": Reader(
        "records",
        ("extract.json", "crossval.json", "seal.json", "start.json", "cost.json", "outcome.json"),
        _records,
    ),
    "cached predictions": Reader("records", ("answers.jsonl",), _cached_predictions),
    "study database": Reader("study", ("study.db",), _study),
    "image PNG": Reader("images", ("a.png",), _image("a.png")),
    "image JPEG": Reader("images", ("a.jpg",), _image("a.jpg")),
    "image TIFF": Reader("images", ("a.tif",), _image("a.tif")),
    "slide TIFF": Reader("slides", ("slide.tif",), _slide("slide.tif")),
    "slide BigTIFF": Reader("slides", ("big.tif",), _slide("big.tif")),
    "slide SVS": Reader("slides", ("slide.svs",), _slide("slide.svs")),
    "slide DICOM": Reader("slides", ("slide.dcm",), _slide("slide.dcm")),
    "slide to de-identify": Reader("slides", ("slide.svs",), _deidentified),
    "mask": Reader("images", ("mask.png",), _mask),
    "stain reference": Reader("tables", ("reference.json",), _reference),
    "predictions of others": Reader("others", ("answers.csv", "truth.csv"), _predictions_of_others),
    "search database": Reader("search", ("study.db",), _search),
    "outlines of a segmenter": Reader(
        "outlines",
        (
            "outlines/slides.csv",
            "outlines/slides/s1/summary.json",
            "outlines/slides/s1/objects.csv",
        ),
        _outlines,
    ),
    "folder of a cohort": Reader(
        "cohort_folder",
        (
            "cohort.json",
            "cases.parquet",
            "status/*.done.json",
            "status/*.failed.json",
            "cases/p1/*.csv",
            "cases/p1/case.json",
        ),
        _cohort,
    ),
    "cluster file": Reader("cohort_folder", ("cluster.toml",), _cluster_file),
    "images of a segmenter": Reader(
        "fields",
        ("segmenter.toml", "images.csv", "images/a.png", "masks/*/a.png"),
        _fields,
    ),
}


# The corpus.


def write_corpus(folder: Path) -> Path:
    """Write every folder of the corpus with the writers of the package."""
    for write in (
        _write_cohort,
        _write_tables,
        _write_regions,
        _write_case,
        _write_configurations,
        _write_model,
        _write_weights,
        _write_records,
        _write_study,
        _write_images,
        _write_others,
        _write_search,
        _write_outlines,
        _write_cohort_folder,
        _write_fields,
    ):
        write(folder)
    return folder


def _write_cohort(folder: Path) -> None:
    import numpy as np
    import pandas as pd

    from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
    from glomerulab.images import write_image
    from glomerulab.taxonomy import Label, Taxonomy

    home = folder / "cohort"
    home.mkdir()
    rng = np.random.default_rng(3)
    taxonomy = Taxonomy("own", (Label(id="normal", name="Normal"), Label(id="cgn", name="Cr.")))
    rows = []
    for number in range(12):
        write_image(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8), home / f"{number}.png")
        rows.append(
            {"image_id": f"i{number}", "image_path": f"{number}.png", "patient_id": f"p{number}"}
            | {"slide_id": f"s{number}", "stain": "PAS", "mpp": 0.5, "scanner": "A"}
            | {"x": number, "y": 2, "width": 24, "height": 24, "fold": number % 3}
            | {"split": ("train", "validation", "test")[number % 3]}
            | {"normal": number % 2, "cgn": 1 - number % 2}
        )
    manifest = manifest_from_rows(pd.DataFrame(rows), folder=home, taxonomy=taxonomy)
    write_manifest(manifest, home / "manifest.csv")
    write_manifest(manifest, home / "manifest.parquet")


def _write_tables(folder: Path) -> None:
    import numpy as np

    from glomerulab.apps.serve.auth import add_key
    from glomerulab.cohort.manifest import manifest_from_rows, read_manifest
    from glomerulab.cohort.paper_labels import write_paper_labels
    from glomerulab.stain.fitting import fit
    from glomerulab.stain.reference import write_reference
    from glomerulab.taxonomy import load_taxonomy

    home = folder / "tables"
    home.mkdir()
    (home / "slides.csv").write_text(
        "slide_path,slide_id,patient_id,stain,mpp,bounds\n"
        "a.svs,s1,p1,PAS,0.5,\nb.svs,s2,p2,HE,0.25,\nc.svs,s3,p2,HE,,\n"
    )
    (home / "labels.csv").write_text(
        "file,case,lesion,stain,um_per_px\n1.png,p1,normal,PAS,0.5\n2.png,p2,crescent,HE,0.25\n"
    )
    (home / "pairs.csv").write_text("image_id,other_image_id\na,b\nc,d\n")
    add_key(home / "keys.json", "ward 3")
    add_key(home / "keys.json", "ward 4")
    rows = read_manifest(folder / "cohort" / "manifest.csv").table
    manifest = manifest_from_rows(rows, folder=home, taxonomy=load_taxonomy("paper"))
    write_paper_labels(manifest, home / "labels.json")
    pixels = np.full((64, 64, 3), (244, 242, 243), dtype=np.uint8)
    rng = np.random.default_rng(3)
    pixels[8:56, 8:32] = rng.normal((190, 110, 170), 12, (48, 24, 3)).clip(0, 255)
    pixels[8:56, 32:56] = rng.normal((110, 60, 150), 12, (48, 24, 3)).clip(0, 255)
    write_reference(
        fit(pixels, "HE", source="target.png", check_stain=False), home / "reference.json"
    )


def _write_regions(folder: Path) -> None:
    import gzip

    from glomerulab.geometry import Box, Region
    from glomerulab.slides.regions.files import write_regions
    from glomerulab.slides.regions.proposals import SCORE

    home = folder / "regions"
    home.mkdir()
    outline = ((400.0, 100.0), (480.5, 120.0), (450.0, 190.0), (410.0, 170.0))
    regions = [
        Region.from_box("g1", Box(100, 100, 80, 60)),
        Region("g2", outline, labels=("normal",)),
        Region("g3", tuple((x, y + 300) for x, y in outline), labels=("Glomerulus", "cgn")),
    ]
    for name, form in (
        ("r.geojson", "geojson"),
        ("imagescope.xml", "imagescope"),
        ("asap.xml", "asap"),
        ("coco.json", "coco"),
        ("r.csv", "csv"),
    ):
        write_regions(regions, home / name, file_format=form)
    (home / "z.geojson.gz").write_bytes(gzip.compress((home / "r.geojson").read_bytes()))
    content = json.loads((home / "r.geojson").read_text())
    first, second, third = content["features"]
    first["properties"] |= {"isLocked": False, "measurements": [{"name": "a", "value": 1}]}
    first["properties"]["childObjects"] = [second]
    third["geometry"] = {"type": "MultiPolygon", "coordinates": [third["geometry"]["coordinates"]]}
    third["nucleusGeometry"] = third["geometry"]
    (home / "qupath.geojson").write_text(json.dumps([first, third]))
    content["proposed_by"] = {"run": "detector"}
    content["features"] = [
        one | {"properties": {"name": f"g{n}", "measurements": {SCORE: 0.9}}}
        for n, one in enumerate(content["features"])
    ]
    (home / "proposals.geojson").write_text(json.dumps(content))


def _write_case(folder: Path) -> None:
    from glomerulab.cases.corrections import add_correction
    from tests.support.cases import case_folder

    home = folder / "case"
    case = case_folder(home)
    add_correction(case, "a1", labels=["normal"], by="Dr Wu", reason="no lesion")
    add_correction(case, "b", labels=["not_a_glomerulus"], by="Dr Wu", reason="a vessel")
    (home / "new.csv").write_bytes((home / "overrides.csv").read_bytes())
    import glomerulab.cases

    rules = Path(glomerulab.cases.__file__).parent / "rule_sets" / "mest_c_like.toml"
    (home / "rules.toml").write_bytes(rules.read_bytes())
    _case(home)


def _write_configurations(folder: Path) -> None:
    from glomerulab.runtime.shipped import read_shipped_config

    home = folder / "configurations"
    home.mkdir()
    for name, shipped in (("train", "default"), ("compare", "compare-paper"), ("search", "search")):
        lines = read_shipped_config(shipped).splitlines()
        lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        (home / f"{name}.toml").write_text("\n".join(lines) + "\n")


def _write_model(folder: Path) -> None:
    from glomerulab.inference.fit_calibration import fit_calibration
    from glomerulab.inference.onnx_export import export_onnx
    from tests.support.model_runs import train_small_run
    from tests.support.run_folders import RunRecipe, write_run

    home = folder / "model"
    run = train_small_run(folder / "training", epochs=1)
    fit_calibration(run)
    export_onnx(run, home / "export")
    shutil.copytree(run, home / "run", ignore=shutil.ignore_patterns("*.csv", "state"))
    for folder_of_model in (home / "run", home / "export"):
        _unseal(folder_of_model)
    write_segmenter(home / "segmenter")
    write_run(folder / "run_tables" / "run", RunRecipe(n_patients=12, n_images_per_patient=3))


def _unseal(folder: Path) -> None:
    """Make a model one from before there were seals, so that damage meets the readers."""
    from glomerulab.runtime.sealing import MARK

    (folder / "seal.json").unlink()
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop(MARK, None) is not None:
            path.write_text(json.dumps(content), encoding="utf-8")


def _write_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from torch import nn

    from glomerulab.training.state import TrainingState, save_state

    home = folder / "weights"
    home.mkdir()
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    save_file(weights, home / "w.safetensors")
    torch.save({"epoch": 3, "state_dict": weights}, home / "w.pth")
    torch.save(weights, home / "old.pth", _use_new_zipfile_serialization=False)
    published = folder / "published"
    published.mkdir()
    save_file({"x": torch.zeros(3)}, published / "model.safetensors")
    config = {
        "architecture": "resnet18",
        "num_classes": 0,
        "model_args": {"img_size": 224},
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.2, 0.2, 0.2],
            "license": "mit",
        },
    }
    (published / "config.json").write_text(json.dumps(config))
    (published / "README.md").write_text("---\nlicense: mit\n---\n@article{a,\n title = {x}\n}\n")
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = TrainingState(model, optimizer, [{"epoch": 1.0, "train_loss": 0.5}])
    (folder / "state" / "state").mkdir(parents=True)
    save_state(folder / "state" / "state", state, dict(model.state_dict()))


def _write_records(folder: Path) -> None:
    from glomerulab.training.features import _store

    home = folder / "records"
    home.mkdir()
    records = {
        "extract.json": {"mpp": 0.5, "slides": ["a", "b"], "options": {"x": [1, 2]}},
        "crossval.json": {"folds": 2, "repeats": 1},
        "seal.json": {"sha256": {}},
        "start.json": {
            "source": "w.pth",
            "pretrained": ["a"],
            "loaded": {name: ["a"] for name in ("loaded", "missing", "misshapen", "reset")}
            | {"unused": []},
            "energies": [{"layer": "a", "energy": 0.5}],
            "notes": [],
        },
        "cost.json": {
            "input_size": 32,
            "n_parameters": 100,
            "n_macs": 1000,
            "train_images_per_second": None,
            "inference_images_per_second": 3.5,
            "n_bytes": 400,
            "machine": "two cores",
        },
        "outcome.json": {"state": "done"},
    }
    for name, content in records.items():
        (home / name).write_text(json.dumps(content))
    training = folder / "training" / "run" / "answers.jsonl"
    (home / "answers.jsonl").write_bytes(training.read_bytes() if training.is_file() else b"{}\n")
    import numpy as np

    features = {(f"/images/{n}.png", 10, n): np.full(8, n, dtype=np.float32) for n in range(6)}
    (folder / "features").mkdir()
    _store(features, folder / "features")


def _write_study(folder: Path) -> None:
    from glomerulab.apps.annotation.store.database import open_store
    from tests.support.annotation_studies import CRESCENT, NORMAL, SCLEROSIS, make_study, save

    home = folder / "study"
    home.mkdir()
    with open_store(home / "study.db", create=True) as store:
        make_study(store, n_images=4)
        save(store, "anna", "g000", NORMAL)
        save(store, "bo", "g000", SCLEROSIS)
        save(store, "anna", "g001", CRESCENT, note="see below")
    connection_files = [path for path in home.iterdir() if path.name != "study.db"]
    assert not connection_files, connection_files


def _write_images(folder: Path) -> None:
    import numpy as np
    import pyvips
    from PIL import Image

    from glomerulab.images import write_image
    from glomerulab.slides.pyramid import write_pyramid
    from glomerulab.slides.tiff_structure import Tag, read_tiff, write_tiff

    home = folder / "images"
    home.mkdir()
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg", "mask.png"):
        write_image(pixels, home / name)
    Image.fromarray(pixels).save(home / "a.tif", compression="tiff_lzw")
    slides = folder / "slides"
    slides.mkdir()
    large = np.kron(rng.integers(60, 240, (24, 32, 3), dtype=np.uint8), np.ones((16, 16, 1), "u1"))
    write_pyramid(large, slides / "slide.tif", mpp=0.5, tile_px=128)
    vips = pyvips.Image.new_from_array(large).copy(interpretation="srgb")
    options = {"tile": True, "tile_width": 128, "tile_height": 128, "pyramid": True}
    options |= {"xres": 2000.0, "yres": 2000.0, "resunit": "cm"}
    vips.tiffsave(str(slides / "big.tif"), bigtiff=True, compression="jpeg", **options)
    note = b"Aperio Image Library v11.2.1\n512x384 (128x128) JPEG/RGB Q=90|MPP = 0.5|AppMag = 20\0"
    tiff = read_tiff(slides / "slide.tif")
    pages = [one.with_tags({**one.tags, 270: Tag(2, len(note), note)}) for one in tiff.directories]
    write_tiff(pages, slides / "slide.tif", slides / "slide.svs", is_big=False)
    _write_dicom(large[:128, :128], slides / "slide.dcm")


def _write_dicom(pixels, path: Path) -> None:
    """Write one level of a whole-slide image with highdicom's library."""
    import io

    import pydicom
    from PIL import Image
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.5", "1.2.3.6"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality, dataset.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.PatientID, dataset.PatientName = "p1", "x^y"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = pixels.shape[:2]
    dataset.NumberOfFrames, dataset.SamplesPerPixel = 1, 3
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation, dataset.PlanarConfiguration = 0, 0
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.DimensionOrganizationType = "TILED_FULL"
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.0005, 0.0005], 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def _write_others(folder: Path) -> None:
    home = folder / "others"
    home.mkdir()
    lines = ["image,label,prob_a,prob_b,patient,stain"]
    truth = ["image,label,centre"]
    for number in range(16):
        label, share = "ab"[number % 2], (number * 7 % 11) / 10.0 * 0.9 + 0.05
        lines.append(f"{number}.png,{label},{share:.3f},{1 - share:.3f},p{number // 2},PAS")
        truth.append(f"{number}.png,{label},north")
    (home / "answers.csv").write_text("\n".join(lines) + "\n")
    (home / "truth.csv").write_text("\n".join(truth) + "\n")


def _write_search(folder: Path) -> None:
    from glomerulab.training.search import _open_study, read_search_config

    home = folder / "search"
    home.mkdir()
    (home / "search.toml").write_bytes((folder / "configurations" / "search.toml").read_bytes())
    config = read_search_config(home / "search.toml", {"out": str(home)})
    with _open_study(config) as study:
        for _ in range(3):
            trial = study.ask()
            rate = trial.suggest_float("optimizer.learning_rate", 1e-4, 1e-2)
            trial.report(rate, 1)
            study.tell(trial, rate)


def _write_outlines(folder: Path) -> None:
    from tests.support.cases import case_folder
    from tests.support.outlines import outlined_slide, write_outlines

    home = folder / "outlines"
    home.mkdir()
    case_folder(home / "case")
    write_outlines(home / "outlines", [outlined_slide("s1", fibrosis=0.3), outlined_slide("s2")])


def _write_cohort_folder(folder: Path) -> None:
    import pandas as pd

    from glomerulab.pipeline.cohort_folder import CaseCounts, CohortFolder
    from tests.support.cases import case, one_call, write_case

    home = folder / "cohort_folder"
    cohort = CohortFolder(home)
    home.mkdir()
    names = ["p1", "p2"]
    cases = pd.DataFrame({"case": names, "name": names, "source": ["ab", "cd"]})
    cohort.begin({"margin": 0.1}, cases, created="2026-11-30T10:00:00+00:00")
    write_case(home / "cases" / "p1", [*case((3, "normal")), one_call("x", "cgn")])
    (home / "cases" / "p1" / "failures.csv").write_text("slide,region,reason\ns1,g9,glass\n")
    counts = CaseCounts(
        seconds=2.5, slides=1, images=4, glomeruli=4, failures=1, grades={"C": "C1"}
    )
    cohort.finish("p1", "p1", counts)
    cohort.fail("p2", "p2", "no slide can be read", CaseCounts(seconds=1.0))
    (home / "cluster.toml").write_text(
        'kind = "slurm"\njobs = 4\ncores = 8\nmemory = "16GB"\nwalltime = "02:00:00"\n'
    )


def _write_fields(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    home = folder / "fields"
    rng = np.random.default_rng(5)
    (home / "images").mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(90, 250, (64, 64, 3), np.uint8)).save(
            home / "images" / f"{name}.png"
        )
        for structure in ("glomerulus", "tubule"):
            (home / "masks" / structure).mkdir(parents=True, exist_ok=True)
            mask = np.zeros((64, 64), np.uint8)
            mask[10:30, 10:40] = 255
            Image.fromarray(mask).save(home / "masks" / structure / f"{name}.png")
    (home / "images.csv").write_text(
        "image,patient_id,stain,mpp\nimages/a.png,p1,PAS,1.0\nimages/b.png,p2,HE,0.5\n"
    )
    (home / "segmenter.toml").write_text(
        'out = "run"\nmpp = 1.0\nencoder = "tf_efficientnet_lite0"\n[[sets]]\n'
        'images = "images.csv"\nmasks = "masks"\ngroup = "patient_id"\n'
        'knows = ["glomerulus", "tubule"]\n'
        'folders = {glomerulus = "glomerulus", tubule = "tubule"}\n'
    )


# The process that reads.


def main(corpus: Path, name: str, start: int, stop: int) -> None:
    """Read damaged copies number `start` to `stop`, and print the outcome of each."""
    reader = READERS[name]
    source = corpus / reader.folder
    names = [
        str(path.relative_to(source)) for one in reader.files for path in sorted(source.glob(one))
    ]
    assert names, name
    others = [path.read_bytes() for path in _some_of_each_folder(corpus)]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        room = Path(temporary)
        shutil.copytree(source, room / "undamaged")
        reader.read(room / "undamaged")  # must succeed; and everything is imported now
        _limit_memory()
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(start, stop):
            chosen = names[number % len(names)]
            content = mutated(chosen, (source / chosen).read_bytes(), number, others)
            work = room / "damaged"
            shutil.copytree(source, work)
            (work / chosen).unlink()
            (work / chosen).write_bytes(content)
            _tell({"number": number, "file": chosen})
            outcome = _outcome(reader, work)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024
            if grown > MAX_BYTES:
                outcome |= {"outcome": "memory", "bytes": grown}
            _tell({"number": number, "file": chosen, **outcome})
            shutil.rmtree(work)
            if outcome["outcome"] == "memory":
                sys.exit(f"{grown} bytes")  # the peak of a process never falls


def _tell(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _outcome(reader: Reader, folder: Path) -> dict[str, object]:
    # Its default action ends the process, also inside compiled code.
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)
    started = time.process_time()
    try:
        reader.read(folder)
        result: dict[str, object] = {"outcome": "read"}
    except GlomerulabError as error:
        problem = _unclear(str(error))
        result = {"outcome": "unclear" if problem else "refused", "text": problem}
    except reader.allowed as error:
        result = {"outcome": "refused", "text": str(error)[:200]}
    except BaseException as error:  # noqa: BLE001 - all of them are reported
        frames = traceback.extract_tb(error.__traceback__)
        own = [
            one for one in frames if "glomerulab" in one.filename and "/tests/" not in one.filename
        ]
        at = own[-1] if own else frames[-1]
        result = {
            "outcome": "traceback",
            "at": f"{Path(at.filename).name}:{at.lineno}",
            "text": f"{type(error).__name__}: {error}"[:300],
            "trace": [f"{Path(one.filename).name}:{one.lineno}" for one in frames[-8:]],
        }
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return result | {"seconds": round(time.process_time() - started, 2)}


def _unclear(message: str) -> str:
    """Return what is wrong with a message: several lines, or longer than a person reads."""
    if "\n" in message or len(message) > 3000:
        return message[:300]
    return ""


def _some_of_each_folder(corpus: Path) -> list[Path]:
    found = []
    for folder in sorted(corpus.iterdir()):
        files = sorted(one for one in folder.rglob("*") if one.is_file())
        found += [one for one in files if one.stat().st_size < 200_000][:3]
    return found


def _limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = size + MAX_BYTES + SLACK_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    corpus, name, start, stop = sys.argv[1:]
    main(Path(corpus), name, int(start), int(stop))
