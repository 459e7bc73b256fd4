import asyncio
import base64
import io
import struct
import zlib

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.pipeline.predict import predict
from glomerulab.taxonomy import load_taxonomy
from tests.support.cases import picture
from tests.support.costly_images import jpeg_with_scans, tiff_with_tile
from tests.support.served_models import served


def png(image: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format=kind)
    return stream.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of a few bytes whose header claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        chunk = kind + data
        return struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("stain", ["PAS", "HE", None])
def test_the_response_equals_predict_on_the_same_image(open_server, trained, tmp_path, rng, stain):
    paper = load_taxonomy("paper")
    rows = []
    for number, label in enumerate(("normal", "mspgn", "fsg", "cgn")):
        (tmp_path / f"{number}.png").write_bytes(png(picture(rng, label, 60)))
        rows.append(
            {"image_id": f"i{number}", "image_path": f"{number}.png", "stain": stain, "mpp": 0.5}
        )
    manifest = manifest_from_rows(pd.DataFrame(rows), folder=tmp_path, taxonomy=paper)
    write_manifest(manifest, tmp_path / "manifest.csv")
    predict(tmp_path / "manifest.csv", trained, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", keep_default_na=False)
    params = {"mpp": 0.5} | ({"stain": stain} if stain else {})
    for number, row in table.iterrows():
        content = (tmp_path / f"{number}.png").read_bytes()
        answer = open_server.client().post("/v1/crops", content=content, params=params).json()
        for label in answer["labels"]:
            assert label["probability"] == pytest.approx(
                float(row[f"probability_{label['id']}"]), abs=1e-5
            )
            assert label["called"] == (int(row[f"called_{label['id']}"]) == 1)
            assert label["state"] == row[f"state_{label['id']}"]
        assert [reason["word"] for reason in answer["reasons"]] == row["reasons"].split()
        assert answer["distance"] == pytest.approx(float(row["distance"]), abs=2e-3)
        assert answer["sharpness"] == pytest.approx(float(row["sharpness"]), abs=1e-4)


def test_a_prediction_names_the_model_the_label_set_and_the_reasons_for_review(open_server, rng):
    tubule = np.clip(rng.normal(40, 60, (60, 60, 3)), 0, 255).astype(np.uint8)
    answer = open_server.client().post("/v1/crops?stain=TRI", content=png(tubule)).json()
    assert answer["referred"]
    meanings = {reason["word"]: reason["meaning"] for reason in answer["reasons"]}
    assert "stain_unseen" in meanings
    assert meanings["stain_unseen"] == "the model was trained on no image of this stain"
    assert set(answer["called"]) <= set(answer["conformal_set"])
    assert answer["coverage"] == 0.9
    assert len(answer["weights_sha256"]) == 64
    assert "micrometres" in answer["notes"][0]


def test_the_scale_of_the_crop_is_noted(open_server, rng):
    content = png(picture(rng, "cgn"))
    notes = open_server.client().post("/v1/crops?mpp=2.0", content=content).json()["notes"]
    assert "2 µm per pixel" in notes[0]
    assert not open_server.client().post("/v1/crops?mpp=0.5", content=content).json()["notes"]


def test_a_scale_that_contradicts_the_file_is_noted(open_server, rng, tmp_path):
    path = tmp_path / "crop.tif"
    options = {"resolution_unit": 3, "x_resolution": 10_000.0, "y_resolution": 10_000.0}
    Image.fromarray(picture(rng, "cgn")).save(path, **options)  # 1 µm per pixel
    for mpp, is_noted in ((5, True), (1, False)):
        answer = open_server.client().post(f"/v1/crops?mpp={mpp}", content=path.read_bytes())
        assert any("states 1 µm" in one for one in answer.json()["notes"]) == is_noted
    Image.fromarray(picture(rng, "cgn")).save(path, dpi=(72, 72))  # of print
    answer = open_server.client().post("/v1/crops?mpp=0.5", content=path.read_bytes())
    assert not answer.json()["notes"]


def test_an_overlay_is_drawn_on_request(open_server, rng):
    content = png(picture(rng, "cgn", 60))
    assert open_server.client().post("/v1/crops", content=content).json()["overlay"] is None
    answer = open_server.client().post("/v1/crops?saliency=true", content=content).json()
    drawn = Image.open(io.BytesIO(base64.b64decode(answer["overlay"]["png_base64"])))
    assert drawn.size == (120, 60)
    likeliest = max(answer["labels"], key=lambda label: label["probability"])
    assert answer["overlay"]["label"] == likeliest["id"]
    assert answer["overlay"]["method"] == "grad-cam"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_every_documented_format_is_accepted(open_server, rng, kind):
    answer = open_server.client().post("/v1/crops", content=png(picture(rng, "cgn"), kind))
    assert answer.status_code == 200


GOOD = png(picture(np.random.default_rng(5), "cgn"))


@pytest.mark.parametrize(
    ("content", "status", "expected"),
    [
        (b"", 422, "empty"),
        (b"just text", 422, "PNG, JPEG, TIFF, BMP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", 422, "PNG, JPEG, TIFF, BMP"),
        (GOOD[: len(GOOD) // 2], 422, "cannot be read"),
        (bomb(6000), 422, "6000 x 6000"),
        (bomb(60_000), 422, "more than the 16,000,000 pixels allowed"),
        (tiff_with_tile(16_000, 44_000), 422, "16000 x 44000"),
        (jpeg_with_scans(2000, 4000), 422, "scans"),
        (bytes(21 * 2**20), 413, "20480 KiB"),
    ],
    ids=["empty", "text", "script", "truncated", "large", "bomb", "tile", "scans", "heavy"],
)
def test_a_bad_upload_is_rejected_with_its_reason_and_the_next_one_is_predicted(
    open_server, content, status, expected
):
    client = open_server.client()
    answer = client.post("/v1/crops", content=content)
    assert answer.status_code == status
    assert expected in answer.json()["detail"]
    assert client.post("/v1/crops", content=GOOD).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "stain=XYZ",
        "stain=",
        "mpp=0",
        "mpp=-1",
        "mpp=30",
        "mpp=nan",
        "mpp=inf",
        "mpp=x",
        "saliency=9",
    ],
)
def test_a_bad_parameter_is_named(open_server, query):
    answer = open_server.client().post(f"/v1/crops?{query}", content=GOOD)
    assert answer.status_code == 422
    name, value = query.split("=")
    detail = answer.json()["detail"]
    assert detail.startswith(f"{name} must be ")
    assert detail.endswith(f"got {value!r}")


@pytest.mark.parametrize("path", ["/v1/crops?stian=PAS", "/v1/jobs?stian=1", "/v1/model?stian=1"])
def test_an_unknown_query_parameter_is_refused(open_server, path):
    method = "POST" if "crops" in path else "GET"
    answer = open_server.client().request(method, path, content=GOOD)
    assert answer.status_code == 422
    assert "'stian'" in answer.json()["detail"]
    assert ("did you mean 'stain'" in answer.json()["detail"]) == ("crops" in path)


def test_a_parameter_that_is_given_twice_is_refused(open_server):
    answer = open_server.client().post("/v1/crops?mpp=0.5&stain=PAS&mpp=5", content=GOOD)
    assert answer.status_code == 422
    assert "'mpp' is given twice" in answer.json()["detail"]


@pytest.mark.parametrize(
    "sent", [{"files": {"file": ("crop.png", GOOD)}}, {"json": {"image": "iVBORw0KGgo="}}, {}]
)
def test_a_wrongly_sent_image_is_told_how_to_be_sent(open_server, sent):
    answer = open_server.client().post("/v1/crops", **sent)
    assert answer.status_code == 422
    assert "--data-binary" in answer.json()["detail"]


def test_bad_requests_do_not_affect_good_ones(open_server):
    contents = [GOOD, b"junk", bomb(6000), GOOD[:500]] * 6

    async def ask_all():
        transport = httpx.ASGITransport(open_server.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await asyncio.gather(
                *(client.post("/v1/crops", content=one) for one in contents)
            )

    answers = asyncio.run(ask_all())
    assert [one.status_code for one in answers] == [200, 422, 422, 422] * 6
    assert len({one.json()["called"][0] for one in answers[::4]}) == 1


def test_a_slow_prediction_times_out_with_retry_after(trained, tmp_path, monkeypatch):
    with served(trained, tmp_path, answer_s=0.05) as one:
        monkeypatch.setattr(
            "glomerulab.apps.serve.routes_crops._response", lambda *_a, **_k: asyncio.sleep(30)
        )
        answer = one.client().post("/v1/crops", content=GOOD)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "10"
