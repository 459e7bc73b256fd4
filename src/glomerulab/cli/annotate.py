"""``glomerulab annotate``: create, run and evaluate a labelling study."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.annotate_files import (
    As,
    Database,
    acting_owner,
    export,
    import_files,
    require_inputs,
)
from glomerulab.cli.annotate_settle import adjudicate, disagreements
from glomerulab.cli.app import CommandGroup

if TYPE_CHECKING:
    from glomerulab.apps.annotation.store.database import Store

__all__ = ["annotate_app"]

annotate_app = CommandGroup(
    help="Label images by several people: queues, agreement, adjudication, exports."
)
annotate_app.command()(export)
annotate_app.command("import")(import_files)
annotate_app.command()(disagreements)
annotate_app.command()(adjudicate)

PasswordFile = Annotated[
    Path | None, typer.Option(help="File with the password in its first line; default: a prompt.")
]


@annotate_app.command()
def serve(
    *,
    db: Annotated[str, typer.Option(help="Database: a SQLite file, or postgresql://…")],
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Images of a new study, as a manifest or a folder; not needed for an existing one."
        ),
    ] = None,
    slides: Annotated[
        Path | None, typer.Option(help="Slides to draw boxes on: one, a folder, or a table (CSV).")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address of a proxy whose X-Forwarded-For is trusted; default: none."),
    ] = None,
) -> None:
    """Label images in the browser, blinded and by several readers.

    Prints the address. The first start of a new database also prints the address at which its
    owner creates the study. Research use only.

    Example: glomerulab annotate serve --manifest crops/manifest.csv --db annotations.db
    """
    require_inputs(manifest, slides)
    from glomerulab.cohort.import_folder import read_images

    images = None if manifest is None else read_images(manifest)

    from glomerulab.apps.annotation.store.database import open_store
    from glomerulab.apps.annotation.store.study import has_study
    from glomerulab.apps.annotation.web.app import serve as serve_site
    from glomerulab.apps.annotation.web.site import Site
    from glomerulab.apps.annotation.web.slide_cache import SlideCache
    from glomerulab.errors import ConfigError

    slide_cache = SlideCache(slides)
    with open_store(db, create=images is not None) as store:
        if images is None and not has_study(store):
            raise ConfigError(
                "the database holds no study yet; give its images with --manifest", where=db
            )
        serve_site(
            Site(store, slide_cache, manifest=images),
            host=host,
            port=port,
            echo=typer.echo,
            proxies=proxy or (),
        )


@annotate_app.command()
def create(
    database: Database,
    *,
    manifest: Annotated[
        Path, typer.Option(help="The images: a manifest (CSV or Parquet), or a folder.")
    ],
    owner: Annotated[str, typer.Option(help="Login of the study's owner.")] = "owner",
    name: Annotated[
        str | None, typer.Option(help="Name of the study; default: the file's.")
    ] = None,
    readers: Annotated[int, typer.Option(min=1, help="Annotators who read each image.")] = 2,
    repeat: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of images that each annotator reads twice.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Random seed of the assignment and its order.")] = 0,
    show_model: Annotated[
        bool, typer.Option("--show-model", help="Annotators see the model's probabilities.")
    ] = False,
    show_others: Annotated[
        bool, typer.Option("--show-others", help="Annotators see each other's labels.")
    ] = False,
    password_file: PasswordFile = None,
) -> None:
    """Create a study: its owner, its images, its design. Research use only.

    Example: glomerulab annotate create study.db --manifest crops/manifest.csv --readers 2
    """
    require_inputs(manifest, password_file)
    from glomerulab.apps.annotation.records import StudySettings
    from glomerulab.apps.annotation.store.accounts import create_account, list_accounts
    from glomerulab.apps.annotation.store.database import open_store
    from glomerulab.apps.annotation.store.study import create_study
    from glomerulab.cohort.import_folder import read_images

    settings = StudySettings(
        name=name or Path(database).stem,
        n_readers=readers,
        repeat_share=repeat,
        seed=seed,
        show_model=show_model,
        show_others=show_others,
    )
    images = read_images(manifest)
    with open_store(database, create=True) as store:
        if not list_accounts(store):
            password = _read_password(password_file, owner)
            create_account(store, login=owner, name=owner, role="owner", password=password, by=None)
        create_study(store, images, owner=owner, settings=settings)
    typer.echo(
        f"{database}: study {settings.name!r} of {len(images.table)} images, owner {owner}. "
        "Add annotators, then distribute. Research use only."
    )


@annotate_app.command("add-annotator")
def add_annotator(
    database: Database,
    login: Annotated[str, typer.Argument(help="Login of the account.")],
    *,
    name: Annotated[
        str | None, typer.Option(help="Name of the person; default: the login.")
    ] = None,
    as_owner: Annotated[
        bool, typer.Option("--owner", help="Another owner instead of an annotator.")
    ] = False,
    as_adjudicator: Annotated[
        bool,
        typer.Option(
            "--adjudicator", help="Someone who settles disagreements and labels no images."
        ),
    ] = False,
    password_file: PasswordFile = None,
    as_: As = None,
) -> None:
    """Create an account.

    Example: glomerulab annotate add-annotator study.db anna --name "Dr Anna Berg"
    """
    from glomerulab.apps.annotation.records import Role
    from glomerulab.apps.annotation.store.accounts import create_account
    from glomerulab.errors import ConfigError

    if as_owner and as_adjudicator:
        raise ConfigError("give one of --owner and --adjudicator; an owner may settle too")
    role: Role = "owner" if as_owner else "adjudicator" if as_adjudicator else "annotator"
    with _opened(database) as store:
        created = create_account(
            store,
            login=login,
            name=name or login,
            role=role,
            password=_read_password(password_file, login),
            by=acting_owner(store, as_),
        )
    typer.echo(f"{created.login}: {created.role} {created.name!r} added")


@annotate_app.command()
def account(
    database: Database,
    login: Annotated[str, typer.Argument(help="Login of the account to change.")],
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
    """Set a new password of an account, deactivate or reactivate it; its sessions end.

    Example: glomerulab annotate account study.db anna --new-password
    """
    from glomerulab.apps.annotation.store.accounts import find_account, set_active, set_password

    with _opened(database) as store:
        by = acting_owner(store, as_)
        if new_password or password_file is not None:
            set_password(store, login=login, password=_read_password(password_file, login), by=by)
        if active is not None:
            set_active(store, login=login, active=active, by=by)
        changed = find_account(store, login)
    state = "active" if changed.active else "inactive"
    typer.echo(f"{changed.login}: {changed.role} {changed.name!r}, {state}")


@annotate_app.command()
def distribute(
    database: Database,
    *,
    third_reader: Annotated[
        str | None,
        typer.Option(help="Assign the open disagreements to this annotator."),
    ] = None,
    further_reader: Annotated[
        str | None,
        typer.Option(help="Assign the images that others skipped to this annotator."),
    ] = None,
    as_: As = None,
) -> None:
    """Assign annotators to images that lack readers, or a further reader to some.

    Example: glomerulab annotate distribute study.db
    """
    from glomerulab.apps.annotation.store.adjudications import (
        list_disagreements,
        list_incomplete,
        list_skipped,
    )
    from glomerulab.apps.annotation.store.assignments import (
        assign_further_reader,
        assign_third_reader,
    )
    from glomerulab.apps.annotation.store.assignments import distribute as distribute_images

    with _opened(database) as store:
        by = acting_owner(store, as_)
        if further_reader is not None:
            images = list_skipped(list_incomplete(store, by=by))
            n_assigned = assign_further_reader(store, images, login=further_reader, by=by)
            typer.echo(f"{n_assigned} of {len(images)} skipped images assigned to {further_reader}")
            return
        if third_reader is not None:
            images = [one.image.image_id for one in list_disagreements(store, by=by)]
            n_assigned = assign_third_reader(store, images, login=third_reader, by=by)
            typer.echo(f"{n_assigned} images assigned to {third_reader} as third reader")
            return
        done = distribute_images(store, by=by)
    typer.echo(
        f"{done.n_images} images distributed: {done.n_assignments} readings, "
        f"{done.n_repeats} of them repeats"
    )


@annotate_app.command()
def progress(database: Database, *, as_: As = None) -> None:
    """Show the progress of every annotator.

    Example: glomerulab annotate progress study.db
    """
    from glomerulab.apps.annotation.store.annotations import study_progress

    with _opened(database) as store:
        annotators = study_progress(store, by=acting_owner(store, as_))
    for one in annotators:
        median = (
            "" if one.seconds_median is None else f", median {one.seconds_median:.1f} s an image"
        )
        typer.echo(
            f"{one.login}: {one.n_done + one.n_skipped} of {one.n_assigned} "
            f"({one.n_skipped} skipped, {one.n_unsure} unsure){median}"
        )


@annotate_app.command()
def agreement(
    database: Database,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Folder for agreement.csv and agreement_confusion.csv.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the bootstrap.")] = 0,
    as_: As = None,
) -> None:
    """Compute kappas and AC1 with intervals, between annotators and of their repeats.

    Example: glomerulab annotate agreement study.db --out agreement
    """
    from glomerulab.apps.annotation.agreement import study_agreement
    from glomerulab.apps.annotation.exports import write_table
    from glomerulab.apps.annotation.store.adjudications import list_image_readings
    from glomerulab.apps.annotation.store.annotations import list_annotations
    from glomerulab.apps.annotation.store.study import read_study
    from glomerulab.evaluation.intervals import MARK, RULE_OF_THREE
    from glomerulab.runtime.files import make_folder

    with _opened(database) as store:
        by = acting_owner(store, as_)
        images = list_image_readings(store, by=by)
        patients = {one.image.image_id: one.image.patient_id for one in images}
        annotations = list_annotations(store, by=by)
        found = study_agreement(annotations, patients, read_study(store).taxonomy, seed=seed)
    marked = False
    for row in found.table.to_dict("records"):
        interval = "" if row["low"] != row["low"] else f" [{row['low']:.3f}, {row['high']:.3f}]"
        mark = MARK if row["interval_method"] == RULE_OF_THREE else ""
        marked = marked or bool(mark)
        value = (
            "not defined" if row["value"] != row["value"] else f"{row['value']:.3f}{interval}{mark}"
        )
        typer.echo(
            f"{row['comparison']:5}{row['readers']:20} {row['label']:10} {row['score']:8}"
            f"{value}  ({row['n_images']} images)"
        )
    typer.echo(
        f"95 % intervals over {found.n_groups} {found.resampled}; {len(annotations)} annotations. "
        "Research use only."
    )
    if marked:
        typer.echo(
            f"{MARK}: every resample gives the same value; the interval is by the rule of three."
        )
    if out is not None:
        make_folder(out)
        write_table(found.table, out / "agreement.csv")
        write_table(found.confusion, out / "agreement_confusion.csv")
        typer.echo(f"Written: {out}")


@annotate_app.command()
def verify(
    database: Database,
    *,
    head: Annotated[
        str | None, typer.Option(help="Head that an export printed: SEQUENCE:HASH.")
    ] = None,
) -> None:
    """Verify the ledger, the tables and the images that readers saw.

    No entry may be changed, removed or reordered, and an image must be the file that was shown.
    Password hashes, sessions and the signing key are not covered.

    Example: glomerulab annotate verify study.db --head 1234:9f86d081...
    """
    from glomerulab.apps.annotation.store.ledger import parse_head, verify_store
    from glomerulab.errors import StoreError

    earlier = None if head is None else parse_head(head)
    with _opened(database) as store:
        found = verify_store(store, earlier=earlier)
    for problem in found.problems:
        typer.echo(problem)
    if found.problems:
        raise StoreError(
            f"the study was altered; see the {len(found.problems)} problem(s) above",
            where=database,
        )
    typer.echo(f"{found.n_entries} entries verified; none was altered. Head: {found.head}")
    typer.echo(f"{found.n_images} images that readers saw are the files that were shown.")
    if found.unread_images:
        names = ", ".join(found.unread_images[:10])
        typer.echo(f"{len(found.unread_images)} images cannot be read here, such as: {names}")
    typer.echo("Not covered: password hashes, sessions and the signing key of the server.")


def _opened(database: str) -> "Store":
    from glomerulab.apps.annotation.store.database import open_store

    return open_store(database)


def _read_password(file: Path | None, login: str) -> str:
    """Read a password from a file, or prompt for it twice."""
    from glomerulab.errors import ConfigError
    from glomerulab.runtime.files import read_utf8

    if file is None:
        return str(typer.prompt(f"Password for {login}", hide_input=True, confirmation_prompt=True))
    lines = read_utf8(file, "password file", error=ConfigError).splitlines()
    if not lines:
        raise ConfigError(
            "the password file is empty; write the password into its first line", where=str(file)
        )
    return lines[0]
