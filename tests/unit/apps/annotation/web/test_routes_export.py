import io
import json
import re

import pandas as pd
import pytest

from tests.support.annotation_studies import CRESCENT, NORMAL, SCLEROSIS, save

FILES = (
    "labels.json",
    "manifest.csv",
    "manifest_soft.csv",
    "annotations.csv",
    "history.csv",
    "record.jsonl",
)


@pytest.fixture
def owner(web):
    save(web.store, "anna", "glom_000", CRESCENT)
    save(web.store, "bo", "glom_000", CRESCENT)
    save(web.store, "anna", "glom_001", NORMAL)
    save(web.store, "bo", "glom_001", SCLEROSIS)
    save(web.store, "bo", "glom_002", SCLEROSIS)
    return web.client("owner")


def _table(owner, name: str) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(owner.get(f"/study/export/{name}").content))


def test_the_papers_json_holds_what_is_settled_and_null_elsewhere(owner):
    rows = {
        row["image_name"]: row for row in json.loads(owner.get("/study/export/labels.json").content)
    }
    assert list(rows["glom_000.png"]) == [
        "image_name",
        "正常肾小球",
        "节段性硬化",
        "系膜细胞增生",
        "新月体形成",
    ]
    assert list(rows["glom_000.png"].values())[1:] == [0, 0, 0, 1]
    assert set(list(rows["glom_001.png"].values())[1:]) == {None}
    assert len(rows) == 6


def test_a_manifest_keeps_the_studys_paths_and_shares_of_readers(owner):
    table = _table(owner, "manifest_soft.csv").set_index("image_id")
    assert table.loc["glom_001", "image_path"] == "images/glom_001.png"
    assert table.loc["glom_001", "soft_fsg"] == 0.5
    assert pd.isna(table.loc["glom_001", "fsg"])
    assert table.loc["glom_000", "settled"] == "agreed"
    assert "soft_fsg" not in _table(owner, "manifest.csv")


def test_annotations_are_told_with_every_version_if_wanted(web, owner):
    item = web.client("anna").get("/api/items/1").json()
    anna = web.client("anna")
    for label in ("cgn", "fsg"):
        item = anna.get("/api/items/6").json()
        anna.save(item, labels={label: 1})
    assert len(_table(owner, "history.csv")) == len(_table(owner, "annotations.csv")) + 1


@pytest.mark.parametrize("name", FILES)
def test_every_file_comes_as_a_download_and_to_the_owner_alone(web, owner, name):
    answer = owner.get(f"/study/export/{name}")
    assert answer.headers["content-disposition"] == f"attachment; filename={name}"
    assert answer.content
    assert web.client("anna").get(f"/study/export/{name}").status_code == 403


def test_only_the_listed_files_can_be_had(owner):
    assert owner.get("/study/export/annotations.db").status_code == 422


def test_the_check_says_whether_the_record_is_as_it_was_written(web, owner):
    seal = re.search(r'class="secret">([^<]+)<', owner.get("/study/export").text).group(1)
    assert "as they were written" in owner.write("/study/verify", data={"head": seal}).text
    assert owner.write("/study/verify", data={"head": "no seal"}).status_code == 422
    wrong = seal[:-1] + ("0" if seal[-1] != "0" else "1")
    assert "altered" in owner.write("/study/verify", data={"head": wrong}).text
    assert web.client("anna").write("/study/verify").status_code == 403
