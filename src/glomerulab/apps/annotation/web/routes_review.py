"""The owner's review: where readers differ, and what is settled, with its history."""

import uuid
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from glomerulab.apps.annotation.records import AdjudicationMethod
from glomerulab.apps.annotation.store.accounts import list_accounts
from glomerulab.apps.annotation.store.adjudications import (
    adjudicate,
    adjudicate_all,
    adjudication_history,
    find_outcome,
    list_disagreements,
)
from glomerulab.apps.annotation.store.assignments import assign_third_reader
from glomerulab.apps.annotation.web.access import CurrentSite, Owner
from glomerulab.apps.annotation.web.pages import render_page
from glomerulab.apps.annotation.web.pictures import read_picture
from glomerulab.apps.annotation.web.site import Site

__all__ = ["router"]

router = APIRouter(prefix="/study")

ImageId = Annotated[str, Query(max_length=1000)]
Text = Annotated[str, Form(max_length=4000)]


@router.get("/disagreements")
def disagreements(
    request: Request, site: CurrentSite, owner: Owner, *, settled: bool = False
) -> Response:
    """List the images on which readers differ."""
    found = list_disagreements(site.store, by=owner.login, include_settled=settled)
    readers = [one for one in list_accounts(site.store) if one.role == "annotator" and one.active]
    return render_page(
        request,
        "disagreements.html.j2",
        account=owner,
        study=site.study(),
        found=found,
        settled=settled,
        readers=readers,
    )


@router.get("/disagreement")
def disagreement(request: Request, site: CurrentSite, owner: Owner, *, image: ImageId) -> Response:
    """Show one image with its readings and what was settled."""
    outcome = find_outcome(site.store, image, by=owner.login)
    history = adjudication_history(site.store, image, by=owner.login)
    return render_page(
        request,
        "disagreement.html.j2",
        account=owner,
        study=site.study(),
        outcome=outcome,
        history=history,
        save_key=str(uuid.uuid4()),
    )


@router.get("/image")
def any_image(site: CurrentSite, owner: Owner, image: ImageId) -> Response:
    """Give an image of the study to its owner."""
    picture = read_picture(find_outcome(site.store, image, by=owner.login).image.image_path)
    headers = {"Cache-Control": "private, max-age=3600"}
    return Response(picture.content, media_type=picture.media_type, headers=headers)


@router.post("/disagreement")
def settle(
    site: CurrentSite,
    owner: Owner,
    *,
    image: Text,
    expected_version: Annotated[int, Form(ge=0, le=2**31 - 1)],
    save_key: Annotated[uuid.UUID, Form()],
    label: Annotated[list[str], Form(max_length=64)] = [],  # noqa: B006 - FastAPI copies it
    note: Text = "",
) -> Response:
    """Settle one image by consensus, and go on to the next."""
    labels = {one: int(one in label) for one in site.study().taxonomy.label_ids}
    adjudicate(
        site.store,
        image,
        labels,
        by=owner.login,
        expected_version=expected_version,
        save_key=str(save_key),
        note=note,
    )
    return Response(status_code=204, headers={"HX-Redirect": _next_address(site, owner.login)})


@router.post("/settle")
def settle_by_rule(
    request: Request,
    site: CurrentSite,
    owner: Owner,
    *,
    method: Annotated[AdjudicationMethod, Form()],
) -> Response:
    """Settle whatever a rule can settle."""
    if method == "consensus":
        return render_page(request, "done.html.j2", message="Open the images one by one.", parts={})
    done = adjudicate_all(site.store, method, by=owner.login)
    message = "{settled} images settled; {left} are left to settle one by one."
    parts = {"settled": done.n_settled, "left": len(done.left)}
    return render_page(request, "done.html.j2", message=message, parts=parts)


@router.post("/third-reader")
def ask_third_reader(
    request: Request, site: CurrentSite, owner: Owner, *, login: Annotated[str, Form(max_length=40)]
) -> Response:
    """Give the open disagreements to one more reader, to whom they look like any other image."""
    images = [one.image.image_id for one in list_disagreements(site.store, by=owner.login)]
    n_given = assign_third_reader(site.store, images, login=login, by=owner.login)
    message = "{n} images handed to the third reader."
    return render_page(request, "done.html.j2", message=message, parts={"n": n_given})


def _next_address(site: Site, login: str) -> str:
    found = list_disagreements(site.store, by=login)
    if not found:
        return "/study/disagreements"
    return f"/study/disagreement?image={quote(found[0].image.image_id, safe='')}"
