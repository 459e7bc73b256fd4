import io
import json
import re
import uuid

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from glomerulab.apps.annotation.agreement import study_agreement
from glomerulab.apps.annotation.store.accounts import check_password
from glomerulab.apps.annotation.store.adjudications import adjudication_history, list_image_readings
from glomerulab.apps.annotation.store.annotations import list_annotations, list_items
from glomerulab.apps.annotation.store.study import read_study
from glomerulab.apps.annotation.web.routes_owner import agreement_rows
from tests.support.annotation_studies import CRESCENT, NORMAL, SCLEROSIS, add_account, save
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


@pytest.fixture
def with_disagreements(web):
    """Let the readers differ on glom_001 and glom_002, and agree on glom_000."""
    for image_id, anna, bo in (
        ("glom_000", NORMAL, NORMAL),
        ("glom_001", CRESCENT, SCLEROSIS),
        ("glom_002", NORMAL, CRESCENT),
    ):
        save(web.store, "anna", image_id, anna)
        save(web.store, "bo", image_id, bo)
    return web.client("owner")


def _adjudicate(with_disagreements, image="glom_001", **changes):
    form = {
        "image": image,
        "expected_version": 0,
        "save_key": str(uuid.uuid4()),
        "label": ["cgn", "fsg"],
    }
    return with_disagreements.write("/study/disagreement", data=form | changes)


def test_the_list_holds_the_images_on_which_readers_differ(with_disagreements):
    page = with_disagreements.get("/study/disagreements").text
    assert re.findall(r">(glom_\d+)</a>", page) == ["glom_001", "glom_002"]


def test_adjudication_leads_to_the_next_image_and_keeps_every_version(web, with_disagreements):
    answer = _adjudicate(with_disagreements, note="both seen together")
    assert answer.headers["HX-Redirect"] == "/study/disagreement?image=glom_002"
    assert "glom_001</a>" not in with_disagreements.get("/study/disagreements").text
    assert _adjudicate(with_disagreements, expected_version=1, label=["cgn"]).status_code == 204
    history = adjudication_history(web.store, "glom_001", by="owner")
    assert [sorted(k for k, v in one.labels.items() if v == 1) for one in history] == [
        ["cgn", "fsg"],
        ["cgn"],
    ]
    assert "both seen together" in with_disagreements.get("/study/disagreement?image=glom_001").text
    assert "glom_001</a>" in with_disagreements.get("/study/disagreements?settled=true").text


def test_two_owners_windows_do_not_overwrite_each_other(with_disagreements):
    assert _adjudicate(with_disagreements).status_code == 204
    assert _adjudicate(with_disagreements, label=["normal"]).status_code == 409


def test_the_same_adjudication_twice_is_stored_once(web, with_disagreements):
    key = str(uuid.uuid4())
    for _ in range(2):
        assert _adjudicate(with_disagreements, save_key=key).status_code == 204
    assert len(adjudication_history(web.store, "glom_001", by="owner")) == 1


def test_labels_that_exclude_each_other_are_rejected(with_disagreements):
    assert _adjudicate(with_disagreements, label=["normal", "cgn"]).status_code == 422


def test_an_image_is_not_settled_without_a_decision(web, with_disagreements):
    undecided = _adjudicate(with_disagreements, label=[])
    assert undecided.status_code == 422
    assert "tick" in undecided.text
    assert _adjudicate(with_disagreements, none="true").status_code == 422  # and two labels
    assert adjudication_history(web.store, "glom_001", by="owner") == []
    assert _adjudicate(with_disagreements, label=[], none="true").status_code == 204
    (settled,) = adjudication_history(web.store, "glom_001", by="owner")
    assert set(settled.labels.values()) == {0}


def test_a_third_reader_decides_by_rule(web, with_disagreements):
    add_account(web.store, "carla")
    assert (
        "2 images" in with_disagreements.write("/study/third-reader", data={"login": "carla"}).text
    )
    for item in list_items(web.store, "carla"):
        save(web.store, "carla", item.image_id, CRESCENT)
    assert (
        "2 images settled; 0"
        in with_disagreements.write("/study/settle", data={"method": "third_reader"}).text
    )
    assert (
        "0 images settled; 0"
        in with_disagreements.write("/study/settle", data={"method": "majority"}).text
    )


def test_two_readers_have_no_majority(with_disagreements):
    assert (
        "0 images settled; 2"
        in with_disagreements.write("/study/settle", data={"method": "majority"}).text
    )


def test_the_owner_sees_any_image_and_an_annotator_none_of_these_pages(web, with_disagreements):
    answer = with_disagreements.get("/study/image?image=glom_002")
    assert answer.content == (web.folder / "images" / "glom_002.png").read_bytes()
    assert with_disagreements.get("/study/image?image=../../etc/passwd").status_code == 404
    for path in (
        "/study/disagreements",
        "/study/disagreement?image=glom_001",
        "/study/image?image=glom_001",
    ):
        assert web.client("anna").get(path).status_code == 403


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
    "manifest.csv",
    "manifest_soft.csv",
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
    table = _table(with_readings, "manifest_soft.csv").set_index("image_id")
    assert table.loc["glom_001", "image_path"] == "images/glom_001.png"
    assert table.loc["glom_001", "soft_fsg"] == 0.5
    assert pd.isna(table.loc["glom_001", "fsg"])
    assert table.loc["glom_000", "settled"] == "agreed"
    assert "soft_fsg" not in _table(with_readings, "manifest.csv")


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


def test_only_the_listed_files_can_be_exported(with_readings):
    assert with_readings.get("/study/export/annotations.db").status_code == 404


def test_the_ledger_is_verified_with_an_earlier_head(web, with_readings):
    head = re.search(r'class="secret">([^<]+)<', with_readings.get("/study/export").text).group(1)
    assert "none was altered" in with_readings.write("/study/verify", data={"head": head}).text
    assert with_readings.write("/study/verify", data={"head": "no head"}).status_code == 422
    wrong = head[:-1] + ("0" if head[-1] != "0" else "1")
    assert 'class="problem"' in with_readings.write("/study/verify", data={"head": wrong}).text
    assert web.client("anna").write("/study/verify").status_code == 403
