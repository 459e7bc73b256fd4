"""Pages of the owner: progress, design, people, agreement and exports."""

import math
import secrets
import tempfile
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from glomerulab.apps.annotation.agreement import EXACT_SET, StudyAgreement, study_agreement
from glomerulab.apps.annotation.consensus import unsettled_reasons
from glomerulab.apps.annotation.exports import (
    annotations_table,
    final_manifest,
    write_events,
    write_table,
)
from glomerulab.apps.annotation.records import Account, Role, StudySettings
from glomerulab.apps.annotation.store.accounts import (
    create_account,
    list_accounts,
    set_active,
    set_password,
)
from glomerulab.apps.annotation.store.adjudications import list_image_readings
from glomerulab.apps.annotation.store.annotations import list_annotations, study_progress
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.ledger import (
    iterate_events,
    parse_head,
    read_head,
    verify_store,
)
from glomerulab.apps.annotation.store.study import change_settings
from glomerulab.apps.annotation.web.access import CurrentSite, Owner
from glomerulab.apps.annotation.web.pages import render_page, result_line
from glomerulab.apps.annotation.web.schemas import Checkbox, FormField, FormText
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.web.language import language_of
from glomerulab.cohort.manifest import write_manifest
from glomerulab.cohort.paper_labels import write_paper_labels
from glomerulab.evaluation.intervals import MARK, RULE_OF_THREE

router = APIRouter(prefix="/study")

FileName = Literal[
    "labels.json",
    "annotations.csv",
    "history.csv",
    "settled.csv",
    "settled_soft.csv",
    "record.jsonl",
]
MEDIA_TYPES = {".json": "application/json", ".csv": "text/csv", ".jsonl": "application/jsonl"}
SCORES = ("percent", "cohen", "fleiss", "ac1")
PASSWORD_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # noqa: S105 - letters hard to confuse


@router.get("")
def overview(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Show the progress and the design."""
    return render_page(
        request, "study.html.j2", account=owner, study=site.study(), **_progress(site, owner)
    )


@router.get("/progress")
def progress_table(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Return the progress table, which the page refreshes every few seconds."""
    return render_page(request, "progress.html.j2", **_progress(site, owner))


@router.post("/design")
def change_design(
    request: Request,
    site: CurrentSite,
    owner: Owner,
    *,
    name: FormField,
    n_readers: Annotated[int, Form(ge=1, le=100)],
    repeat_percent: Annotated[int, Form(ge=0, le=50)],
    seed: Annotated[int, Form(ge=0, le=2**31 - 1)],
    show_model: Checkbox = False,
    show_others: Checkbox = False,
) -> Response:
    """Change the settings of the study from now on."""
    settings = StudySettings(
        name, n_readers, repeat_percent / 100, seed, show_model=show_model, show_others=show_others
    )
    change_settings(site.store, settings, by=owner.login)
    message = "The design is saved."
    return result_line(request, message)


@router.post("/distribute")
def distribute_images(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Assign annotators to every image that lacks readers."""
    done = distribute(site.store, by=owner.login)
    message = "{images} images handed out, in {assignments} readings ({repeats} of them repeats)."
    return result_line(
        request,
        message,
        images=done.n_images,
        assignments=done.n_assignments,
        repeats=done.n_repeats,
    )


@router.get("/people")
def people(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Show the accounts."""
    return _people(request, site, owner, "people.html.j2")


@router.post("/people")
def add_person(
    request: Request,
    site: CurrentSite,
    owner: Owner,
    *,
    name: FormField,
    login: FormField,
    role: Annotated[Role, Form()],
) -> Response:
    """Create an account with a first password that is shown once."""
    password = _readable_password()
    created = create_account(
        site.store, login=login, name=name, role=role, password=password, by=owner.login
    )
    return _people(request, site, owner, created=created, password=password)


@router.post("/people/{login}/password")
def renew_password(request: Request, site: CurrentSite, owner: Owner, login: str) -> Response:
    """Give an account another password, shown once; its sessions end."""
    password = _readable_password()
    created = set_password(site.store, login=login, password=password, by=owner.login)
    return _people(request, site, owner, created=created, password=password)


@router.post("/people/{login}/active")
def change_active(
    request: Request,
    site: CurrentSite,
    owner: Owner,
    *,
    login: str,
    active: Checkbox = False,
) -> Response:
    """Allow or forbid an account to log in; its annotations are kept."""
    set_active(site.store, login=login, active=active, by=owner.login)
    return _people(request, site, owner)


@router.get("/agreement")
def agreement_page(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Show the page, which loads its tables when they are computed."""
    return render_page(request, "agreement.html.j2", account=owner, study=site.study())


@router.get("/agreement/tables")
def agreement_tables(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """Compute and return the tables."""
    study = site.study()
    images = list_image_readings(site.store, by=owner.login)
    found = study_agreement(
        list_annotations(site.store, by=owner.login),
        {one.image.image_id: one.image.patient_id for one in images},
        study.taxonomy,
    )
    return render_page(
        request,
        "agreement_tables.html.j2",
        study=study,
        found=found,
        rows=agreement_rows(found),
        confusion=found.confusion.to_dict("records"),
        exact_set=EXACT_SET,
    )


def agreement_rows(found: StudyAgreement) -> list[dict[str, object]]:
    """Return one row per comparison and label, with the scores and their intervals as text.

    A row has ``comparison``, ``readers``, ``label``, ``n_images`` and each score: an en dash where
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


@router.get("/export")
def export_page(request: Request, site: CurrentSite, owner: Owner) -> Response:
    """List the files that can be exported."""
    study, images = site.study(), list_image_readings(site.store, by=owner.login)
    reasons = unsettled_reasons(
        images,
        study.taxonomy,
        n_readers=study.settings.n_readers,
        language=language_of(request),
        names={one.login: one.name for one in list_accounts(site.store)},
    )
    return render_page(
        request,
        "export.html.j2",
        account=owner,
        study=study,
        head=str(read_head(site.store)),
        n_images=len(images),
        reasons=reasons,
    )


@router.get("/export/{name}")
def download(site: CurrentSite, owner: Owner, name: FileName) -> Response:
    """Write a file and return it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        WRITERS[name](site, owner.login, path)
        content = path.read_bytes()
    saved_as = _free_name(site.study().image_root, name)
    headers = {"Content-Disposition": f"attachment; filename={saved_as}"}
    return Response(content, media_type=MEDIA_TYPES[path.suffix], headers=headers)


@router.post("/verify")
def verify(
    request: Request,
    site: CurrentSite,
    owner: Owner,  # noqa: ARG001
    head: FormText = "",
) -> Response:
    """Verify the ledger, with an earlier head if one is given."""
    earlier = parse_head(head) if head.strip() else None
    found = verify_store(site.store, earlier=earlier)
    return render_page(request, "verified.html.j2", found=found)


def _progress(site: Site, owner: Account) -> dict[str, Any]:
    accounts = list_accounts(site.store)
    return {
        "progress": study_progress(site.store, by=owner.login),
        "n_annotators": sum(one.role == "annotator" and one.active for one in accounts),
    }


def _free_name(folder: Path, name: str) -> str:
    """Return a name that no file of the folder has, such as the manifest that a study began with.

    A manifest must be saved beside the images, so the suggested name must not replace another.
    """
    stem, suffix = Path(name).stem, Path(name).suffix
    names = (name, *(f"{stem}-{number}{suffix}" for number in range(2, 100)))
    return next((one for one in names if not (folder / one).exists()), name)


def _people(
    request: Request,
    site: Site,
    owner: Account,
    template: str = "people_table.html.j2",
    *,
    created: Account | None = None,
    password: str | None = None,
) -> Response:
    return render_page(
        request,
        template,
        account=owner,
        study=site.study(),
        accounts=list_accounts(site.store),
        created=created,
        password=password,
    )


def _readable_password() -> str:
    """Return a password of about 79 bits, in groups that can be read aloud."""
    groups = ["".join(secrets.choice(PASSWORD_ALPHABET) for _ in range(4)) for _ in range(4)]
    return "-".join(groups)


def _with_interval(one: Mapping[Hashable, object]) -> str:
    value, low, high = (float(str(one[name])) for name in ("value", "low", "high"))
    if math.isnan(value):
        return "not defined"
    if math.isnan(low):
        return f"{value:.2f}".replace("-", "−")
    mark = MARK if one["interval_method"] == RULE_OF_THREE else ""
    return f"{value:.2f} ({low:.2f}, {high:.2f}){mark}".replace("-", "−")


def _write_labels(site: Site, login: str, path: Path) -> None:
    images = list_image_readings(site.store, by=login)
    write_paper_labels(final_manifest(images, site.study()), path)


def _write_manifest(site: Site, login: str, path: Path) -> None:
    images = list_image_readings(site.store, by=login)
    manifest = final_manifest(images, site.study(), soft=path.stem.endswith("_soft"))
    # Paths stay as they are in the study: the file belongs in the folder that they start from.
    write_manifest(replace(manifest, folder=path.parent), path)


def _write_annotations(site: Site, login: str, path: Path) -> None:
    annotations = list_annotations(site.store, by=login, every_version=path.stem == "history")
    images = {one.image.image_id: one.image for one in list_image_readings(site.store, by=login)}
    write_table(annotations_table(annotations, images, site.study().taxonomy.label_ids), path)


def _write_ledger(site: Site, _login: str, path: Path) -> None:
    write_events(iterate_events(site.store), path)


WRITERS: dict[str, Callable[[Site, str, Path], None]] = {
    "labels.json": _write_labels,
    "annotations.csv": _write_annotations,
    "history.csv": _write_annotations,
    "settled.csv": _write_manifest,
    "settled_soft.csv": _write_manifest,
    "record.jsonl": _write_ledger,
}
