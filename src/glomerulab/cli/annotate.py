"""``glomerulab annotate``: what the owner of a labelling study does from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.annotate_files import export, import_files
from glomerulab.cli.annotate_options import As, Database, owner_of, password_from
from glomerulab.cli.annotate_serve import serve

if TYPE_CHECKING:
    from glomerulab.apps.annotation.store.database import Store

__all__ = ["annotate_app"]

annotate_app = typer.Typer(
    help="Label images by several people: queues, agreement, adjudication, exports.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
annotate_app.command()(serve)
annotate_app.command()(export)
annotate_app.command("import")(import_files)

PasswordFile = Annotated[
    Path | None, typer.Option(help="File whose first line is the password; else it is asked for.")
]


@annotate_app.command()
def create(
    database: Database,
    *,
    manifest: Annotated[Path, typer.Option(help="Manifest of the images, CSV or Parquet.")],
    owner: Annotated[str, typer.Option(help="Login of the study's owner.")] = "owner",
    name: Annotated[str | None, typer.Option(help="Of the study; default: the file's.")] = None,
    readers: Annotated[int, typer.Option(min=1, help="Annotators who read each image.")] = 2,
    repeat: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of images that each reads twice.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of who reads what, and in which order.")] = 0,
    show_model: Annotated[
        bool, typer.Option("--show-model", help="Annotators see the model's probabilities.")
    ] = False,
    show_others: Annotated[
        bool, typer.Option("--show-others", help="Annotators see each other's labels.")
    ] = False,
    password_file: PasswordFile = None,
) -> None:
    """Begin a study: its owner, its images, its design. Research use only.

    Example: glomerulab annotate create study.db --manifest crops/manifest.csv --readers 2
    """
    from glomerulab.apps.annotation.records import StudySettings
    from glomerulab.apps.annotation.store.accounts import create_account, list_accounts
    from glomerulab.apps.annotation.store.database import open_store
    from glomerulab.apps.annotation.store.study import new_study
    from glomerulab.cohort.manifest import read_manifest

    settings = StudySettings(
        name=name or Path(database).stem,
        n_readers=readers,
        repeat_share=repeat,
        seed=seed,
        show_model=show_model,
        show_others=show_others,
    )
    images = read_manifest(manifest)
    with open_store(database, create=True) as store:
        if not list_accounts(store):
            password = password_from(password_file, owner)
            create_account(store, login=owner, name=owner, role="owner", password=password, by=None)
        new_study(store, images, owner=owner, settings=settings)
    typer.echo(
        f"{database}: study {settings.name!r} of {len(images.table)} images, owner {owner}. "
        "Add annotators, then distribute. Research use only."
    )


@annotate_app.command("add-annotator")
def add_annotator(
    database: Database,
    login: Annotated[str, typer.Argument(help="What they log in with.")],
    *,
    name: Annotated[str | None, typer.Option(help="As people know them.")] = None,
    as_owner: Annotated[
        bool, typer.Option("--owner", help="Another owner instead of an annotator.")
    ] = False,
    password_file: PasswordFile = None,
    as_: As = None,
) -> None:
    """Make an account.

    Example: glomerulab annotate add-annotator study.db anna --name "Dr Anna Berg"
    """
    from glomerulab.apps.annotation.store.accounts import create_account

    with _opened(database) as store:
        made = create_account(
            store,
            login=login,
            name=name or login,
            role="owner" if as_owner else "annotator",
            password=password_from(password_file, login),
            by=owner_of(store, as_),
        )
    typer.echo(f"{made.login}: {made.role} {made.name!r} added")


@annotate_app.command()
def account(
    database: Database,
    login: Annotated[str, typer.Argument(help="Of the account to change.")],
    *,
    new_password: Annotated[
        bool, typer.Option("--new-password", help="Ask for a new password.")
    ] = False,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="Whether it may log in.")
    ] = None,
    password_file: PasswordFile = None,
    as_: As = None,
) -> None:
    """Give an account a new password, shut it out or let it in; its sessions end.

    Example: glomerulab annotate account study.db anna --new-password
    """
    from glomerulab.apps.annotation.store.accounts import find_account, set_active, set_password

    with _opened(database) as store:
        by = owner_of(store, as_)
        if new_password or password_file is not None:
            set_password(store, login=login, password=password_from(password_file, login), by=by)
        if active is not None:
            set_active(store, login=login, active=active, by=by)
        now = find_account(store, login)
    typer.echo(f"{now.login}: {now.role} {now.name!r}, {'active' if now.active else 'inactive'}")


@annotate_app.command()
def distribute(
    database: Database,
    *,
    third_reader: Annotated[
        str | None,
        typer.Option(help="Give the open disagreements to this annotator to settle by reading."),
    ] = None,
    as_: As = None,
) -> None:
    """Give every image that lacks readers its annotators, or disagreements a third reader.

    Example: glomerulab annotate distribute study.db
    """
    from glomerulab.apps.annotation.store.adjudications import list_disagreements
    from glomerulab.apps.annotation.store.assignments import assign_third_reader
    from glomerulab.apps.annotation.store.assignments import distribute as distribute_images

    with _opened(database) as store:
        by = owner_of(store, as_)
        if third_reader is not None:
            differ = [one.image.image_id for one in list_disagreements(store, by=by)]
            n_given = assign_third_reader(store, differ, login=third_reader, by=by)
            typer.echo(f"{n_given} images given to {third_reader} as third reader")
            return
        done = distribute_images(store, by=by)
    typer.echo(
        f"{done.n_images} images distributed: {done.n_assignments} readings, "
        f"{done.n_repeats} of them repeats"
    )


@annotate_app.command()
def progress(database: Database, *, as_: As = None) -> None:
    """Show how far everyone is.

    Example: glomerulab annotate progress study.db
    """
    from glomerulab.apps.annotation.store.progress import study_progress

    with _opened(database) as store:
        everyone = study_progress(store, by=owner_of(store, as_))
    for one in everyone:
        each = "" if one.seconds_median is None else f", median {one.seconds_median:.1f} s an image"
        typer.echo(
            f"{one.login}: {one.n_done + one.n_skipped} of {one.n_assigned} "
            f"({one.n_skipped} skipped, {one.n_unsure} unsure){each}"
        )


@annotate_app.command()
def agreement(
    database: Database,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Folder for agreement.csv and agreement_confusion.csv.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    as_: As = None,
) -> None:
    """Compute kappas and AC1 with intervals, between annotators and of each with themselves.

    Example: glomerulab annotate agreement study.db --out agreement
    """
    from glomerulab.apps.annotation.agreement import study_agreement
    from glomerulab.apps.annotation.exports import write_table
    from glomerulab.apps.annotation.store.adjudications import list_outcomes
    from glomerulab.apps.annotation.store.readings import list_annotations
    from glomerulab.apps.annotation.store.study import read_study
    from glomerulab.runtime.files import make_folder

    with _opened(database) as store:
        by = owner_of(store, as_)
        outcomes = list_outcomes(store, by=by)
        patients = {one.image.image_id: one.image.patient_id for one in outcomes}
        said = list_annotations(store, by=by)
        found = study_agreement(said, patients, read_study(store).taxonomy, seed=seed)
    for row in found.table.to_dict("records"):
        interval = "" if row["low"] != row["low"] else f" [{row['low']:.3f}, {row['high']:.3f}]"
        value = "not defined" if row["value"] != row["value"] else f"{row['value']:.3f}{interval}"
        typer.echo(
            f"{row['comparison']:5}{row['readers']:20} {row['label']:10} {row['score']:8}"
            f"{value}  ({row['n_images']} images)"
        )
    typer.echo(
        f"95 % intervals over {found.n_groups} {found.resampled}; {len(said)} judgements. "
        "Research use only."
    )
    if out is not None:
        make_folder(out)
        write_table(found.table, out / "agreement.csv")
        write_table(found.confusion, out / "agreement_confusion.csv")
        typer.echo(f"Written: {out}")


@annotate_app.command()
def disagreements(
    database: Database,
    *,
    settled: Annotated[
        bool, typer.Option("--settled", help="Also those that are settled.")
    ] = False,
    as_: As = None,
) -> None:
    """List the images on which readers differ, with what each said.

    Example: glomerulab annotate disagreements study.db
    """
    from glomerulab.apps.annotation.store.adjudications import list_disagreements

    with _opened(database) as store:
        found = list_disagreements(store, by=owner_of(store, as_), include_settled=settled)
    for one in found:
        said = "; ".join(
            f"{reading.login}: {_set_labels(reading.judgement.labels)}" for reading in one.readings
        )
        how = "" if one.adjudication is None else f" [{one.adjudication.method}]"
        typer.echo(f"{one.image.image_id}{how}{' stale' if one.stale else ''}  {said}")
    typer.echo(f"{len(found)} disagreement(s)")


@annotate_app.command()
def adjudicate(
    database: Database,
    image_id: Annotated[
        str | None, typer.Argument(help="Settle this image by consensus, with --label.")
    ] = None,
    *,
    label: Annotated[
        list[str] | None, typer.Option(help="What it shows; the others are absent; repeatable.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="It shows none of the labels.")] = False,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    majority: Annotated[
        bool, typer.Option("--majority", help="Settle what more than half agree on.")
    ] = False,
    third: Annotated[
        bool, typer.Option("--third", help="Settle what a third reader has read.")
    ] = False,
    as_: As = None,
) -> None:
    """Settle disagreements: all by a rule, or one image by consensus. The history is kept.

    Example: glomerulab annotate adjudicate study.db g017 --label cgn --note "fibrous"
    """
    from glomerulab.apps.annotation.store.adjudications import adjudicate_all
    from glomerulab.errors import ConfigError

    if (image_id is not None) + majority + third != 1:
        raise ConfigError("give one of IMAGE_ID, --majority and --third")
    if image_id is not None and bool(label) == none:
        raise ConfigError("say what the image shows: --label once or more, or --none")
    with _opened(database) as store:
        by = owner_of(store, as_)
        if image_id is not None:
            _settle(store, image_id, label or [], note, by)
            return
        done = adjudicate_all(store, "majority" if majority else "third_reader", by=by)
    typer.echo(f"{done.n_settled} settled, {len(done.left)} left")
    for left in done.left:
        typer.echo(f"  {left}")


@annotate_app.command()
def verify(
    database: Database,
    *,
    head: Annotated[
        str | None, typer.Option(help="Head that an export printed: SEQUENCE:HASH.")
    ] = None,
) -> None:
    """Check that nothing in the record was changed, removed or put in another order.

    Example: glomerulab annotate verify study.db --head 1234:9f86d081...
    """
    from glomerulab.apps.annotation.store.audit import parse_head, verify_store
    from glomerulab.errors import StoreError

    earlier = None if head is None else parse_head(head)
    with _opened(database) as store:
        found = verify_store(store, earlier=earlier)
    for problem in found.problems:
        typer.echo(problem)
    if found.problems:
        raise StoreError(f"was altered: {len(found.problems)} problem(s)", where=database)
    typer.echo(f"{found.n_entries} entries, as they were written. Head: {found.head}")


def _opened(database: str) -> "Store":
    from glomerulab.apps.annotation.store.database import open_store

    return open_store(database)


def _settle(store: "Store", image_id: str, names: list[str], note: str, by: str) -> None:
    from uuid import uuid4

    from glomerulab.apps.annotation.store.adjudications import adjudicate as settle
    from glomerulab.apps.annotation.store.adjudications import find_outcome
    from glomerulab.apps.annotation.store.study import read_study

    taxonomy = read_study(store).taxonomy
    shown = {taxonomy.find(name).id for name in names}
    before = find_outcome(store, image_id, by=by).adjudication
    done = settle(
        store,
        image_id,
        {label_id: int(label_id in shown) for label_id in taxonomy.label_ids},
        by=by,
        expected_version=0 if before is None else before.version,
        save_key=str(uuid4()),
        note=note,
    )
    typer.echo(f"{image_id}: {_set_labels(done.labels)}, by consensus, version {done.version}")


def _set_labels(labels: object) -> str:
    shown = dict(labels)  # type: ignore[call-overload]
    return ", ".join(label_id for label_id, value in shown.items() if value == 1) or "none"
