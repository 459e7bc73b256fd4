"""``glomerulab annotate disagreements|adjudicate``: settle what readers see differently."""

from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.annotate_files import As, Database, acting_owner

if TYPE_CHECKING:
    from glomerulab.apps.annotation.records import Labels
    from glomerulab.apps.annotation.store.database import Store


def disagreements(
    database: Database,
    *,
    settled: Annotated[
        bool, typer.Option("--settled", help="Also those that are settled.")
    ] = False,
    incomplete: Annotated[
        bool,
        typer.Option("--incomplete", help="Instead those that lack readings, with the reasons."),
    ] = False,
    as_: As = None,
) -> None:
    """List the images on which readers disagree, with the labels of each.

    Example: glomerulab annotate disagreements study.db
    """
    from glomerulab.apps.annotation.consensus import incomplete_reasons
    from glomerulab.apps.annotation.store.adjudications import list_disagreements, list_incomplete
    from glomerulab.apps.annotation.store.database import open_store
    from glomerulab.apps.annotation.store.study import read_study

    with open_store(database) as store:
        by = acting_owner(store, as_)
        found = list_disagreements(store, by=by, include_adjudicated=settled)
        lacking = list_incomplete(store, by=by)
        n_readers = read_study(store).settings.n_readers
    if incomplete:
        for image in lacking:
            reasons = "; ".join(incomplete_reasons(image, n_readers=n_readers))
            typer.echo(f"{image.image.image_id}  {reasons}")
        typer.echo(f"{len(lacking)} incomplete image(s)")
        return
    for one in found:
        readings = "; ".join(
            f"{reading.login}: {_set_labels(reading.content.labels)}" for reading in one.readings
        )
        method = "" if one.adjudication is None else f" [{one.adjudication.method}]"
        typer.echo(f"{one.image.image_id}{method}{' stale' if one.stale else ''}  {readings}")
    more = f"; {len(lacking)} incomplete image(s): --incomplete lists them" if lacking else ""
    typer.echo(f"{len(found)} disagreement(s){more}")


def adjudicate(
    database: Database,
    image_id: Annotated[
        str | None, typer.Argument(help="Settle this image by consensus, with --label.")
    ] = None,
    *,
    label: Annotated[
        list[str] | None, typer.Option(help="A label it shows; the others are absent; repeatable.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="It shows none of the labels.")] = False,
    exclude: Annotated[
        bool, typer.Option("--exclude", help="Leave it out: it cannot be labelled.")
    ] = False,
    note: Annotated[str, typer.Option(help="Note of the adjudication.")] = "",
    majority: Annotated[
        bool, typer.Option("--majority", help="Settle images with a majority for every label.")
    ] = False,
    third: Annotated[
        bool, typer.Option("--third", help="Settle images that a third reader has read.")
    ] = False,
    as_: As = None,
) -> None:
    """Settle disagreements: all by a rule, or one image by consensus. The history is kept.

    Example: glomerulab annotate adjudicate study.db g017 --label cgn --note "fibrous"
    """
    from glomerulab.apps.annotation.store.adjudications import adjudicate_all
    from glomerulab.apps.annotation.store.database import open_store
    from glomerulab.errors import ConfigError

    if (image_id is not None) + majority + third != 1:
        raise ConfigError("give exactly one of IMAGE_ID, --majority and --third")
    if image_id is not None and bool(label) + none + exclude != 1:
        raise ConfigError(
            "give the labels of the image: --label once or more, or --none, or --exclude"
        )
    with open_store(database) as store:
        by = acting_owner(store, as_)
        if image_id is not None:
            _adjudicate_image(store, image_id, None if exclude else label or [], note, by)
            return
        done = adjudicate_all(store, "majority" if majority else "third_reader", by=by)
    typer.echo(f"{done.n_resolved} settled, {len(done.unresolved)} left")
    for unresolved in done.unresolved:
        typer.echo(f"  {unresolved}")


def _adjudicate_image(
    store: "Store", image_id: str, names: list[str] | None, note: str, by: str
) -> None:
    """Settle an image by its labels, or leave it out."""
    from uuid import uuid4

    from glomerulab.apps.annotation.store.adjudications import adjudicate as adjudicate_image
    from glomerulab.apps.annotation.store.adjudications import find_image_readings
    from glomerulab.apps.annotation.store.study import read_study

    taxonomy = read_study(store).taxonomy
    chosen = {taxonomy.find(name).id for name in names or []}
    current = find_image_readings(store, image_id, by=by).adjudication
    done = adjudicate_image(
        store,
        image_id,
        None if names is None else {one: int(one in chosen) for one in taxonomy.label_ids},
        by=by,
        expected_version=0 if current is None else current.version,
        save_key=str(uuid4()),
        note=note,
    )
    if names is None:
        typer.echo(f"{image_id}: left out, version {done.version}")
        return
    typer.echo(f"{image_id}: {_set_labels(done.labels)}, by consensus, version {done.version}")


def _set_labels(labels: "Labels") -> str:
    return ", ".join(label_id for label_id, value in labels.items() if value == 1) or "none"
