"""The same pixels get the same bits: from `predict`, over HTTP, in a job and from Python."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.geometry import Box, Region
from glomerulab.images import write_image
from glomerulab.inference.calibration import read_calibration, write_calibration
from glomerulab.inference.model import load_model
from glomerulab.phantom.crops import example_crop
from glomerulab.pipeline.predict import predict
from glomerulab.pipeline.predict_inputs import PredictSettings
from glomerulab.runtime.sealing import write_seal
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import write_regions
from glomerulab.stain.fitting import fit
from glomerulab.taxonomy import load_taxonomy
from tests.support.served_models import served, wait_for

KINDS = ("normal", "cgn", "mspgn", "fsg", "fsg+cgn", "normal", "cgn")


@pytest.fixture
def run(own_run: Path) -> Path:
    """A run whose images were normalised to a PAS crop."""
    target = fit(example_crop("PAS", "normal", seed=1, size=128).pixels, "PAS")
    write_calibration(replace(read_calibration(own_run), references={"PAS": target}), own_run)
    write_seal(own_run)
    return own_run


@pytest.fixture
def crops(tmp_path: Path) -> list[Path]:
    """Crops of two sections; of one the tissue has a single stain, of one it is glass."""
    paths = [tmp_path / f"c{number}.png" for number in range(len(KINDS) + 2)]
    for number, kind in enumerate(KINDS):
        crop = example_crop("PAS", kind, seed=number, size=120 + 8 * number, mpp=1.0)
        write_image(crop.pixels, paths[number])
    one_stain = example_crop("PAS", "normal", seed=3, size=128).pixels.copy()
    one_stain[..., 1] = one_stain[..., 0]
    write_image(one_stain, paths[-2])
    write_image(np.full((128, 128, 3), 244, np.uint8), paths[-1])
    return paths


def _by_http(client, path: Path, mpp: float) -> tuple:
    response = client.post(f"/v1/crops?stain=PAS&mpp={mpp}", content=path.read_bytes())
    assert response.status_code == 200, response.text
    found = response.json()
    chances = {one["id"]: one["probability"] for one in found["labels"]}
    return chances, set(found["called"]), [one["word"] for one in found["reasons"]]


def _of_call(call) -> tuple:
    return dict(call.probabilities), set(call.called or ()), list(call.reasons)


def _of_decision(one) -> tuple:
    return dict(one.probabilities), set(one.called), list(one.reasons)


@pytest.mark.parametrize(
    "mpp", [0.7, *(pytest.param(mpp, marks=pytest.mark.slow) for mpp in (0.5, 1.0))]
)
def test_a_manifest_http_and_python_give_the_same_bits(
    run: Path, crops: list[Path], tmp_path: Path, mpp: float
) -> None:
    rows = [
        {"image_id": path.stem, "image_path": path.name, "mpp": mpp, "stain": "PAS"}
        | {"patient_id": "p1", "slide_id": f"s{number % 2}"}
        for number, path in enumerate(crops)
    ]
    manifest = manifest_from_rows(
        pd.DataFrame(rows), folder=tmp_path, taxonomy=load_taxonomy("paper")
    )
    write_manifest(manifest, tmp_path / "manifest.csv")
    folder = predict(tmp_path / "manifest.csv", run, tmp_path / "out").folder
    by_command = {one.image_id: _of_call(one) for one in read_case_folder(folder).calls}
    with served(run, tmp_path) as server:
        client = server.client()
        by_http = {path.stem: _by_http(client, path, mpp) for path in reversed(crops)}
    assert by_http == by_command
    model = load_model(run)
    n_threads = torch.get_num_threads()
    try:
        for n, batch_size in ((1, 1), (2, 4), (2, 16)):
            torch.set_num_threads(n)
            found = model.predict(crops, stain="PAS", mpp=mpp, batch_size=batch_size)
            decisions = {path.stem: one for path, one in zip(crops, found, strict=True)}
            assert {key: _of_decision(one) for key, one in decisions.items()} == by_command
    finally:
        torch.set_num_threads(n_threads)


@pytest.mark.slow
def test_a_slide_its_job_and_its_crops_over_http_give_the_same_bits(
    run: Path, crops: list[Path], tmp_path: Path
) -> None:
    pixels = np.full((600, 2400, 3), 243, dtype=np.uint8)
    regions = []
    for number, kind in enumerate(KINDS):
        box = Box(60 + 320 * number, 100, 240, 240)
        pixels[box.y : box.y + 240, box.x : box.x + 240] = example_crop(
            "PAS", kind, seed=number, size=240, mpp=0.5
        ).pixels
        regions.append(Region.from_box(f"g{number}", box))
    (tmp_path / "slides").mkdir()
    write_pyramid(pixels, tmp_path / "slides" / "s1.tif", mpp=0.5, compression="deflate")
    write_regions(regions, tmp_path / "slides" / "s1.geojson")
    settings = PredictSettings(regions=tmp_path / "slides" / "s1.geojson", stain="PAS")
    slide = tmp_path / "slides" / "s1.tif"
    folder = predict(slide, run, tmp_path / "out", settings=settings).folder
    calls = read_case_folder(folder).calls
    assert len(calls) == len(KINDS)
    with served(run, tmp_path, with_slides=True) as server:
        client = server.client()
        for call in calls:
            assert _by_http(client, folder / call.image_path, 0.5) == _of_call(call)
        body = {"slides": [{"path": "s1.tif", "stain": "PAS"}], "regions": "s1.geojson"}
        job = wait_for(client.post("/v1/jobs", json=body).json()["id"], client, "done", "failed")
        assert job["state"] == "done", job
        table = client.get(f"/v1/jobs/{job['id']}/result/predictions.csv").text
    names = [f"probability_{key}" for key in load_taxonomy("paper").label_ids]
    ours = pd.read_csv(folder / "predictions.csv", dtype=str)[names]
    (tmp_path / "job.csv").write_text(table)
    assert pd.read_csv(tmp_path / "job.csv", dtype=str)[names].equals(ours)
