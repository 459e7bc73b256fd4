"""Pages on which annotators look through their own labels: a grid, its filters, a tally."""

from typing import Annotated, TypedDict

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from glomerulab.apps.annotation.records import Annotation, ItemState
from glomerulab.apps.annotation.store.annotations import (
    image_of_item,
    list_items,
    own_annotations,
)
from glomerulab.apps.annotation.web.access import CurrentAccount, CurrentSite
from glomerulab.apps.annotation.web.image_files import read_thumbnail
from glomerulab.apps.annotation.web.pages import render_page
from glomerulab.apps.annotation.web.schemas import RecordId
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.web.language import language_of
from glomerulab.i18n.catalogue import Language, localized, translate
from glomerulab.taxonomy import Taxonomy

router = APIRouter()

Show = Annotated[str, Query(max_length=100)]
"""A filter of `shows`."""
Read = tuple[ItemState, Annotation]
"""An item that its annotator labelled or skipped."""


class Tally(TypedDict):
    """A filter, its name in the language of the page, and the number of items that it shows."""

    show: str
    text: str
    n: int


@router.get("/review")
def review_page(
    request: Request, site: CurrentSite, account: CurrentAccount, show: Show = "all"
) -> Response:
    """Show the own labels as a grid."""
    read, n_open = _read_items(site, account.login)
    if account.role == "adjudicator" and not read and not n_open:
        return RedirectResponse("/study/disagreements", 303)
    study = site.study()
    return render_page(
        request,
        "review.html.j2",
        account=account,
        study=study,
        tally=tally(read, study.taxonomy, language_of(request)),
        chosen=[one for one in read if shows(one[1], show)],
        show=show,
        n_open=n_open,
    )


@router.get("/api/review")
def review(
    request: Request, site: CurrentSite, account: CurrentAccount, show: Show = "all"
) -> dict[str, object]:
    """Return the positions of the own items that a filter shows, and the tally of all."""
    read, _ = _read_items(site, account.login)
    return {
        "places": [item.position for item, annotation in read if shows(annotation, show)],
        "tally": tally(read, site.study().taxonomy, language_of(request)),
    }


@router.get("/items/{assignment_id}/thumbnail")
def thumbnail(site: CurrentSite, account: CurrentAccount, assignment_id: RecordId) -> Response:
    """Return a small picture of an item of the own queue."""
    path = image_of_item(site.store, account.login, assignment_id).image_path
    headers = {"Cache-Control": "private, max-age=3600"}
    return Response(read_thumbnail(path), media_type="image/jpeg", headers=headers)


def shows(annotation: Annotation, show: str) -> bool:
    """Return whether a filter shows an annotation.

    Parameters
    ----------
    show : str
        ``all``, ``unsure``, ``noted``, ``skipped``, ``none`` (no label), or the id of a label that
        is set, after ``label:``.
    """
    content = annotation.content
    flags = {
        "all": True,
        "unsure": content.unsure,
        "noted": bool(content.note),
        "skipped": content.skip_reason is not None,
        "none": content.skip_reason is None and 1 not in content.labels.values(),
    }
    return flags.get(show, content.labels.get(show.removeprefix("label:")) == 1)


def tally(read: list[Read], taxonomy: Taxonomy, language: Language) -> list[Tally]:
    """Return the filters with their names and numbers of items; rare marks only where there are."""
    filters = [("all", translate("All", language))]
    filters += [
        (f"label:{label.id}", localized(label, "name", language)) for label in taxonomy.labels
    ]
    filters += [
        ("none", translate("no label", language)),
        ("unsure", translate("Unsure", language)),
        ("noted", translate("With a note", language)),
        ("skipped", translate("Skipped", language)),
    ]
    counted = [
        Tally(show=show, text=text, n=sum(shows(annotation, show) for _, annotation in read))
        for show, text in filters
    ]
    return [one for one in counted if one["n"] or one["show"] != "none"]


def _read_items(site: Site, login: str) -> tuple[list[Read], int]:
    """Return the items that were labelled or skipped, in order, and how many are open."""
    annotations = own_annotations(site.store, login)
    items = list_items(site.store, login)
    read = [
        (item, annotations[item.assignment_id])
        for item in items
        if item.assignment_id in annotations
    ]
    return read, len(items) - len(read)
