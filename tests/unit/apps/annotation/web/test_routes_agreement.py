import numpy as np
from sklearn.metrics import cohen_kappa_score

from glomerulab.apps.annotation.store.readings import list_annotations
from glomerulab.apps.annotation.web.routes_agreement import _agreement, agreement_rows
from tests.support.annotation_studies import CRESCENT, NORMAL, SCLEROSIS, save


def _differ(web) -> None:
    for number in range(6):
        save(web.store, "anna", f"glom_00{number}", (NORMAL, CRESCENT)[number % 2])
        save(web.store, "bo", f"glom_00{number}", (NORMAL, CRESCENT, SCLEROSIS)[number % 3])


def test_the_tables_show_what_scikit_learn_computes(web):
    _differ(web)
    flags = {
        login: [
            one.judgement.labels["cgn"]
            for one in sorted(list_annotations(web.store, by="owner"), key=lambda one: one.image_id)
            if one.login == login
        ]
        for login in ("anna", "bo")
    }
    expected = cohen_kappa_score(flags["anna"], flags["bo"])
    rows = agreement_rows(_agreement(web.site, "owner"))
    (row,) = [one for one in rows if (one["comparison"], one["label"]) == ("pair", "cgn")]
    assert str(row["cohen"]).startswith(f"{expected:.2f} (".replace("-", "−"))
    assert row["n_images"] == 6
    page = web.client("owner").get("/study/agreement/tables").text
    assert str(row["cohen"]) in page
    assert np.isfinite(expected)


def test_the_page_stands_at_once_and_asks_for_its_tables(web):
    page = web.client("owner").get("/study/agreement").text
    assert 'hx-get="/study/agreement/tables"' in page


def test_without_readings_it_says_so(web):
    assert "Nothing to compare" in web.client("owner").get("/study/agreement/tables").text


def test_annotators_do_not_see_it(web):
    for path in ("/study/agreement", "/study/agreement/tables"):
        assert web.client("anna").get(path).status_code == 403
