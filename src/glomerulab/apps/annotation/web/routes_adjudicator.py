"""Pages of those who settle images: disagreements, incomplete images, one image with its readings.

An owner and an adjudicator settle; only an owner gives images to further readers.
"""

import uuid
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import Response

from glomerulab.apps.annotation.consensus import incomplete_reasons
from glomerulab.apps.annotation.records import AdjudicationMethod
from glomerulab.apps.annotation.store.accounts import find_account, list_accounts
from glomerulab.apps.annotation.store.adjudications import (
    adjudicate,
    adjudicate_all,
    adjudication_history,
    count_by_rule,
    find_image_readings,
    list_disagreements,
    list_incomplete,
    list_skipped,
)
from glomerulab.apps.annotation.store.assignments import (
    assign_further_reader,
    assign_third_reader,
)
from glomerulab.apps.annotation.web.access import Adjudicator, CurrentSite, Owner
from glomerulab.apps.annotation.web.image_files import read_browser_image
from glomerulab.apps.annotation.web.pages import label_guide, render_page, result_line
from glomerulab.apps.annotation.web.schemas import Checkbox, FormField, FormText, ShortText
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.web.language import language_of
from glomerulab.errors import AnnotationError

router = APIRouter(prefix="/study")

ImageId = Annotated[str, Query(max_length=1000)]


@router.get("/disagreements")
def disagreements(
    request: Request, site: CurrentSite, account: Adjudicator, *, settled: bool = False
) -> Response:
    """List the images on which readers disagree, and those that lack readings."""
    people = list_accounts(site.store)
    names = {one.login: one.name for one in people}
    n_readers, language = site.study().settings.n_readers, language_of(request)
    incomplete = list_incomplete(site.store, by=account.login)
    reasons = {
        one.image.image_id: incomplete_reasons(
            one, n_readers=n_readers, language=language, names=names
        )
        for one in incomplete
    }
    return render_page(
        request,
        "disagreements.html.j2",
        account=account,
        study=site.study(),
        found=list_disagreements(site.store, by=account.login, include_adjudicated=settled),
        by_rule=count_by_rule(site.store, by=account.login),
        stopped=[one for one in incomplete if not one.waiting],
        waiting=[one for one in incomplete if one.waiting],
        n_skipped=len(list_skipped(incomplete)),
        reasons=reasons,
        settled=settled,
        names=names,
        readers=[one for one in people if one.role == "annotator" and one.active],
    )


@router.get("/disagreement")
def disagreement(
    request: Request, site: CurrentSite, account: Adjudicator, *, image: ImageId
) -> Response:
    """Show one image with its readings and the history of its adjudication."""
    study = site.study()
    found = find_image_readings(site.store, image, by=account.login)
    settings = {
        "picture": {
            "src": f"/study/image?image={quote(image, safe='')}",
            "alt": image,
            "mpp": found.image.mpp,
        },
        "guide": label_guide(request, study),
    }
    return render_page(
        request,
        "disagreement.html.j2",
        account=account,
        study=study,
        settings=settings,
        found=found,
        history=adjudication_history(site.store, image, by=account.login),
        names={one.login: one.name for one in list_accounts(site.store)},
        save_key=str(uuid.uuid4()),
    )


@router.get("/image")
def any_image(site: CurrentSite, account: Adjudicator, image: ImageId) -> Response:
    """Return any image of the study to those who settle."""
    path = find_image_readings(site.store, image, by=account.login).image.image_path
    found = read_browser_image(path)
    headers = {"Cache-Control": "private, max-age=3600"}
    return Response(found.content, media_type=found.media_type, headers=headers)


@router.post("/disagreement")
def adjudicate_image(
    site: CurrentSite,
    account: Adjudicator,
    *,
    image: FormText,
    expected_version: Annotated[int, Form(ge=0, le=2**31 - 1)],
    save_key: Annotated[uuid.UUID, Form()],
    label: Annotated[list[ShortText], Form(max_length=64)] = [],  # noqa: B006 - FastAPI copies it
    none: Checkbox = False,
    exclude: Checkbox = False,
    note: FormText = "",
) -> Response:
    """Adjudicate one image by consensus, and redirect to the next that is to be settled."""
    if bool(label) + none + exclude != 1:
        raise AnnotationError(
            "an image is settled by its labels; tick those that it shows, or one of the lines "
            "below them alone"
        )
    # A label outside of the taxonomy stays among them, and is refused.
    chosen = dict.fromkeys(label, 1)
    labels = {**dict.fromkeys(site.study().taxonomy.label_ids, 0), **chosen}
    adjudicate(
        site.store,
        image,
        None if exclude else labels,
        by=account.login,
        expected_version=expected_version,
        save_key=str(save_key),
        note=note,
    )
    return Response(status_code=204, headers={"HX-Redirect": _next_address(site, account.login)})


@router.post("/settle")
def adjudicate_by_rule(
    request: Request,
    site: CurrentSite,
    account: Adjudicator,
    *,
    method: Annotated[AdjudicationMethod, Form()],
) -> Response:
    """Adjudicate every disagreement that a rule can decide."""
    if method not in {"majority", "third_reader"}:
        message = "Consensus is entered image by image; open them one by one."
        return result_line(request, message)
    done = adjudicate_all(site.store, method, by=account.login)
    message = "{settled} images settled; {left} must be settled one by one."
    return result_line(request, message, settled=done.n_resolved, left=len(done.unresolved))


@router.post("/third-reader")
def ask_third_reader(
    request: Request, site: CurrentSite, owner: Owner, *, login: FormField
) -> Response:
    """Assign the open disagreements to one more reader, to whom they look like any other image."""
    images = [one.image.image_id for one in list_disagreements(site.store, by=owner.login)]
    n_assigned = assign_third_reader(site.store, images, login=login, by=owner.login)
    message = "{n} images handed to the third reader."
    return result_line(request, message, n=n_assigned)


@router.post("/further-reader")
def ask_further_reader(
    request: Request, site: CurrentSite, owner: Owner, *, login: FormField
) -> Response:
    """Assign the images that were skipped, and that nobody is going to read, to another reader."""
    images = list_skipped(list_incomplete(site.store, by=owner.login))
    n_assigned = assign_further_reader(site.store, images, login=login, by=owner.login)
    name = find_account(site.store, login).name
    if n_assigned < len(images):
        message = "{n} of {all} images handed to {name}, who has the others already."
        return result_line(request, message, n=n_assigned, all=len(images), name=name)
    message = "{n} images handed to {name}."
    return result_line(request, message, n=n_assigned, name=name)


def _next_address(site: Site, login: str) -> str:
    left = [one.image.image_id for one in list_disagreements(site.store, by=login)]
    left += list_skipped(list_incomplete(site.store, by=login))
    if not left:
        return "/study/disagreements"
    return f"/study/disagreement?image={quote(left[0], safe='')}"
