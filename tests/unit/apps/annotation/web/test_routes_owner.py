import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from glomerulab.apps.annotation.agreement import study_agreement
from glomerulab.apps.annotation.store.accounts import check_password
from glomerulab.apps.annotation.store.adjudications import list_image_readings
from glomerulab.apps.annotation.store.annotations import list_annotations, list_items
from glomerulab.apps.annotation.store.study import read_study
from glomerulab.apps.annotation.web.routes_owner import agreement_rows
from tests.support.annotation_studies import CRESCENT, NORMAL, SCLEROSIS, save
from tests.support.annotation_web import page_labels


def test_the_overview_shows_the_progress_of_everyone(web):
    save(web.store, "anna", "glom_000")
    page = web.client("owner").get("/study").text
    assert re.search(r"Anna</td>.*?1 / 6", page)
    assert re.search(r"Bo</td>.*?0 / 6", page)


def test_a_new_annotator_gets_a_password_that_is_shown_once(web):
    owner = web.client("owner")
    form = {"name": "Carla", "login": "carla", "role": "annotator"}
    answer = owner.write("/study/people", data=form)
    password = re.search(r'id="new-password">([^<]+)<', answer.text).group(1)
    assert check_password(web.store, login="carla", password=password).role == "annotator"
    assert password not in owner.get("/study/people").text
    assert owner.write("/study/people", data=form).status_code == 422


def test_a_renewed_password_replaces_the_old_one_and_ends_sessions(web):
    owner, anna = web.client("owner"), web.client("anna")
    answer = owner.write("/study/people/anna/password")
    password = re.search(r'id="new-password">([^<]+)<', answer.text).group(1)
    assert check_password(web.store, login="anna", password=password)
    assert anna.get("/api/items").status_code == 401


def test_a_deactivated_account_can_be_reactivated(web):
    owner, bo = web.client("owner"), web.client("bo")
    owner.write("/study/people/bo/active", data={"active": "false"})
    assert bo.get("/api/items").status_code == 401
    owner.write("/study/people/bo/active", data={"active": "true"})
    assert web.client("bo").get("/api/items").status_code == 200


def test_the_design_changes_and_new_readers_get_their_images(web):
    owner = web.client("owner")
    form = {
        "name": "Renamed",
        "n_readers": "3",
        "repeat_percent": "0",
        "seed": "5",
        "show_model": "true",
    }
    assert "saved" in owner.write("/study/design", data=form).text
    settings = read_study(web.store).settings
    assert (settings.name, settings.n_readers, settings.show_model, settings.show_others) == (
        "Renamed",
        3,
        True,
        False,
    )
    owner.write("/study/people", data={"name": "Carla", "login": "carla", "role": "annotator"})
    assert "6 images" in owner.write("/study/distribute").text
    assert len(list_items(web.store, "carla")) == 6


def test_the_progress_table_is_a_fragment(web):
    answer = web.client("owner").get("/study/progress", headers={"HX-Request": "true"})
    assert answer.text.lstrip().startswith("<div")


def _differ(web) -> None:
    for number in range(6):
        save(web.store, "anna", f"glom_00{number}", (NORMAL, CRESCENT)[number % 2])
        save(web.store, "bo", f"glom_00{number}", (NORMAL, CRESCENT, SCLEROSIS)[number % 3])


def test_the_tables_show_what_scikit_learn_computes(web):
    _differ(web)
    flags = {
        login: [
            one.content.labels["cgn"]
            for one in sorted(list_annotations(web.store, by="owner"), key=lambda one: one.image_id)
            if one.login == login
        ]
        for login in ("anna", "bo")
    }
    expected = cohen_kappa_score(flags["anna"], flags["bo"])
    patients = {
        one.image.image_id: one.image.patient_id
        for one in list_image_readings(web.store, by="owner")
    }
    annotations = list_annotations(web.store, by="owner")
    rows = agreement_rows(study_agreement(annotations, patients, read_study(web.store).taxonomy))
    (row,) = [one for one in rows if (one["comparison"], one["label"]) == ("pair", "cgn")]
    assert str(row["cohen"]).startswith(f"{expected:.2f} (".replace("-", "−"))
    assert row["n_images"] == 6
    page = web.client("owner").get("/study/agreement/tables").text
    assert str(row["cohen"]) in page
    assert np.isfinite(expected)


def test_the_agreement_page_loads_its_tables_afterwards(web):
    page = web.client("owner").get("/study/agreement").text
    assert 'hx-get="/study/agreement/tables"' in page


def test_the_agreement_page_of_a_study_without_readings(web):
    assert "nothing to compare" in web.client("owner").get("/study/agreement/tables").text


def test_annotators_do_not_see_the_agreement(web):
    for path in ("/study/agreement", "/study/agreement/tables"):
        assert web.client("anna").get(path).status_code == 403


FILES = (
    "labels.json",
    "settled.csv",
    "settled_soft.csv",
    "annotations.csv",
    "history.csv",
    "record.jsonl",
)


@pytest.fixture
def with_readings(web):
    save(web.store, "anna", "glom_000", CRESCENT)
    save(web.store, "bo", "glom_000", CRESCENT)
    save(web.store, "anna", "glom_001", NORMAL)
    save(web.store, "bo", "glom_001", SCLEROSIS)
    save(web.store, "bo", "glom_002", SCLEROSIS)
    return web.client("owner")


def _table(with_readings, name: str) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(with_readings.get(f"/study/export/{name}").content))


def test_the_papers_json_holds_what_is_settled_and_null_elsewhere(with_readings):
    rows = {
        row["image_name"]: row
        for row in json.loads(with_readings.get("/study/export/labels.json").content)
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


def test_a_manifest_keeps_the_studys_paths_and_shares_of_readers(with_readings):
    table = _table(with_readings, "settled_soft.csv").set_index("image_id")
    assert table.loc["glom_001", "image_path"] == "images/glom_001.png"
    assert table.loc["glom_001", "soft_fsg"] == 0.5
    assert pd.isna(table.loc["glom_001", "fsg"])
    assert table.loc["glom_000", "settled"] == "agreed"
    assert "soft_fsg" not in _table(with_readings, "settled.csv")


def test_the_history_has_every_version(web, with_readings):
    item = web.client("anna").get("/api/items/1").json()
    anna = web.client("anna")
    for label in ("cgn", "fsg"):
        item = anna.get("/api/items/6").json()
        anna.save(item, labels=page_labels(label))
    assert (
        len(_table(with_readings, "history.csv"))
        == len(_table(with_readings, "annotations.csv")) + 1
    )


@pytest.mark.parametrize("name", FILES)
def test_every_file_comes_as_a_download_and_to_the_owner_alone(web, with_readings, name):
    answer = with_readings.get(f"/study/export/{name}")
    assert answer.headers["content-disposition"] == f"attachment; filename={name}"
    assert answer.content
    assert web.client("anna").get(f"/study/export/{name}").status_code == 403


def test_a_manifest_is_not_saved_over_the_one_that_the_study_began_with(web, with_readings):
    (web.folder / "settled.csv").write_text("image_id,image_path\n")
    answer = with_readings.get("/study/export/settled.csv")
    assert answer.headers["content-disposition"] == "attachment; filename=settled-2.csv"


def test_the_export_counts_and_names_what_is_not_settled(web, with_readings):
    save(web.store, "bo", "glom_003", skip_reason="cut off")
    page = with_readings.get("/study/export").text
    assert "1 of 6 images are settled" in page
    rows = dict(re.findall(r">(glom_\d+)</a></td><td>([^<]*)<", page))
    assert rows["glom_001"] == "its readers disagree"
    assert rows["glom_002"] == "Anna has not read it yet"
    assert rows["glom_003"] == "Bo skipped it: cut off; Anna has not read it yet"
    assert len(rows) == 5


def test_only_the_listed_files_can_be_exported(with_readings):
    assert with_readings.get("/study/export/annotations.db").status_code == 404


def test_the_ledger_is_verified_with_an_earlier_head(web, with_readings):
    head = re.search(r'class="secret">([^<]+)<', with_readings.get("/study/export").text).group(1)
    assert "none was altered" in with_readings.write("/study/verify", data={"head": head}).text
    assert with_readings.write("/study/verify", data={"head": "no head"}).status_code == 422
    wrong = head[:-1] + ("0" if head[-1] != "0" else "1")
    assert 'class="problem"' in with_readings.write("/study/verify", data={"head": wrong}).text
    assert web.client("anna").write("/study/verify").status_code == 403
