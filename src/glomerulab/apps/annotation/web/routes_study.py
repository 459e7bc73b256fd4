"""The owner's pages: how far the study is, its design, and who takes part."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from glomerulab.apps.annotation.records import Account, Role, StudySettings
from glomerulab.apps.annotation.store.accounts import (
    create_account,
    list_accounts,
    set_active,
    set_password,
)
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.progress import study_progress
from glomerulab.apps.annotation.store.study import change_settings
from glomerulab.apps.annotation.web.access import CurrentSite, Owner
from glomerulab.apps.annotation.web.pages import render_page

__all__ = ["router"]

router = APIRouter(prefix="/study")

Field = Annotated[str, Form(max_length=200)]
PASSWORD_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # noqa: S105 - letters that are not mistaken
PASSWORD_GROUPS = 4


@router.get("")
def overview(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Show how far everyone is, and the design."""
    progress = study_progress(site.store, by=owner.login)
    return render_page(
        request, "study.html.j2", account=owner, study=site.study(), progress=progress
    )


@router.get("/progress")
def progress_table(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Give the table alone; the page asks for it every few seconds."""
    progress = study_progress(site.store, by=owner.login)
    return render_page(request, "progress.html.j2", progress=progress)


@router.post("/design")
def change_design(
    request: Request,
    site: CurrentSite,
    owner: Owner,
    *,
    name: Field,
    n_readers: Annotated[int, Form(ge=1, le=100)],
    repeat_percent: Annotated[int, Form(ge=0, le=50)],
    seed: Annotated[int, Form(ge=0, le=2**31 - 1)],
    show_model: Annotated[bool, Form()] = False,
    show_others: Annotated[bool, Form()] = False,
) -> Response:
    """Change how the study is run from now on."""
    settings = StudySettings(
        name, n_readers, repeat_percent / 100, seed, show_model=show_model, show_others=show_others
    )
    change_settings(site.store, settings, by=owner.login)
    return render_page(request, "done.html.j2", message="The design is saved.", parts={})


@router.post("/distribute")
def hand_out(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Give every image that lacks readers its annotators."""
    done = distribute(site.store, by=owner.login)
    message = "{images} images handed out, in {assignments} readings ({repeats} of them repeats)."
    parts = {"images": done.n_images, "assignments": done.n_assignments, "repeats": done.n_repeats}
    return render_page(request, "done.html.j2", message=message, parts=parts)


@router.get("/people")
def people(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Show the accounts."""
    return _people(request, site, owner, "people.html.j2")


@router.post("/people")
def add_person(
    request: Request, site: CurrentSite, owner: Owner, *, name: Field, login: Field, role: Field
) -> Response:
    """Make an account with a first password that is shown once."""
    password = _readable_password()
    chosen: Role = "owner" if role == "owner" else "annotator"
    made = create_account(
        site.store, login=login, name=name, role=chosen, password=password, by=owner.login
    )
    return _people(request, site, owner, "people_table.html.j2", made=made, password=password)


@router.post("/people/{login}/password")
def renew_password(request: Request, site: CurrentSite, owner: Owner, login: str) -> Response:
    """Give an account another password, shown once; its sessions end."""
    password = _readable_password()
    made = set_password(site.store, login=login, password=password, by=owner.login)
    return _people(request, site, owner, "people_table.html.j2", made=made, password=password)


@router.post("/people/{login}/active")
def change_active(
    request: Request,
    site: CurrentSite,
    owner: Owner,
    *,
    login: str,
    active: Annotated[bool, Form()] = False,
) -> Response:
    """Let an account in, or shut it out; what it said stays."""
    set_active(site.store, login=login, active=active, by=owner.login)
    return _people(request, site, owner, "people_table.html.j2")


def _people(
    request: Request,
    site: CurrentSite,
    owner: Owner,
    template: str,
    *,
    made: Account | None = None,
    password: str | None = None,
) -> Response:
    return render_page(
        request,
        template,
        account=owner,
        study=site.study(),
        accounts=list_accounts(site.store),
        made=made,
        password=password,
    )


def _readable_password() -> str:
    """Return about 79 bits in groups that can be read out."""
    groups = [
        "".join(secrets.choice(PASSWORD_ALPHABET) for _ in range(4)) for _ in range(PASSWORD_GROUPS)
    ]
    return "-".join(groups)
