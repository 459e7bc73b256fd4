"""The owner's agreement tables: how far readers agree, with intervals."""

import math
from collections.abc import Hashable, Mapping

from fastapi import APIRouter, Request
from starlette.responses import Response

from glomerulab.apps.annotation.agreement import EXACT_SET, StudyAgreement, study_agreement
from glomerulab.apps.annotation.store.adjudications import list_outcomes
from glomerulab.apps.annotation.store.readings import list_annotations
from glomerulab.apps.annotation.web.access import CurrentSite, Owner
from glomerulab.apps.annotation.web.pages import render_page
from glomerulab.apps.annotation.web.site import Site

__all__ = ["agreement_rows", "router"]

router = APIRouter(prefix="/study")

SCORES = ("percent", "cohen", "fleiss", "ac1")


@router.get("/agreement")
def agreement_page(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Show the page; its tables come when they are computed."""
    return render_page(request, "agreement.html.j2", account=owner, study=site.study())


@router.get("/agreement/tables")
def agreement_tables(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Compute the tables."""
    found = _agreement(site, owner.login)
    return render_page(
        request,
        "agreement_tables.html.j2",
        study=site.study(),
        found=found,
        rows=agreement_rows(found),
        confusion=found.confusion.to_dict("records"),
        exact_set=EXACT_SET,
    )


def agreement_rows(found: StudyAgreement) -> list[dict[str, object]]:
    """Return one row per comparison and label, its scores as text with their intervals.

    Parameters
    ----------
    found : StudyAgreement

    Returns
    -------
    list of dict
        ``comparison``, ``readers``, ``label``, ``n_images``, and each score; an en dash where
        a score does not apply, ``not defined`` where it cannot be computed.
    """
    rows: dict[tuple[str, str, str], dict[str, object]] = {}
    for one in found.table.to_dict("records"):
        key = (str(one["comparison"]), str(one["readers"]), str(one["label"]))
        start = dict(zip(("comparison", "readers", "label"), key, strict=True))
        row = rows.setdefault(key, {**start, **dict.fromkeys(SCORES, "–")})
        row["n_images"] = one["n_images"]
        row[str(one["score"])] = _with_interval(one)
    return list(rows.values())


def _agreement(site: Site, login: str) -> StudyAgreement:
    patients = {
        one.image.image_id: one.image.patient_id for one in list_outcomes(site.store, by=login)
    }
    said = list_annotations(site.store, by=login)
    return study_agreement(said, patients, site.study().taxonomy)


def _with_interval(one: Mapping[Hashable, object]) -> str:
    value, low, high = (float(str(one[name])) for name in ("value", "low", "high"))
    if math.isnan(value):
        return "not defined"
    if math.isnan(low):
        return f"{value:.2f}".replace("-", "−")
    return f"{value:.2f} ({low:.2f}, {high:.2f})".replace("-", "−")
