"""``glomerulab annotate import|export``: files into and out of a labelling study."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from glomerulab.cli.options import (
    ClassOption,
    DrawnMppOption,
    IgnoreBoundsOption,
    SkipClassOption,
    region_options,
)

if TYPE_CHECKING:
    from glomerulab.apps.annotation.store.database import Store
    from glomerulab.slides.regions.features import RegionNote, RegionOptions
    from glomerulab.slides.regions.parsing import InvalidRegion

MAX_NAMED = 20
"""Images that are named in the terminal."""
What = Literal["labels", "soft", "annotations", "history", "audit", "regions", "masks"]
Database = Annotated[str, typer.Argument(help="SQLite file, or postgresql://user@host/database.")]
As = Annotated[
    str | None, typer.Option("--as", help="Login of the acting owner, if there are several.")
]


def require_inputs(*paths: Path | None) -> None:
    """Refuse a missing file or folder before anything that takes seconds to load is imported."""
    from glomerulab.errors import ConfigError

    for path in paths:
        if path is not None and not path.exists():
            raise ConfigError("there is no such file or folder; correct the path", where=str(path))


def acting_owner(store: "Store", login: str | None) -> str:
    """Return the login given with ``--as``, or that of the only owner."""
    from glomerulab.apps.annotation.store.accounts import list_accounts
    from glomerulab.errors import AnnotationError

    if login is not None:
        return login
    owners = [one.login for one in list_accounts(store) if one.role == "owner" and one.active]
    if not owners:
        raise AnnotationError(
            "the study has no active owner; if `glomerulab annotate create` was stopped before it "
            "had a password, run it again, otherwise name one with --as LOGIN",
            where=store.location,
        )
    if len(owners) > 1:
        raise AnnotationError(
            f"the study has several owners ({', '.join(owners)}); name the acting one with --as "
            "LOGIN",
            where=store.location,
        )
    return owners[0]


def import_files(
    database: Database,
    *,
    images: Annotated[
        Path | None,
        typer.Option(help="Manifest or folder whose new images are added to the study."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Manifest or label JSON: readings of --annotator.")
    ] = None,
    regions: Annotated[
        Path | None, typer.Option(help="Region file, drawn by --annotator on --slide.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="predictions.csv of a run, for a study that shows it.")
    ] = None,
    annotator: Annotated[
        str | None, typer.Option(help="Login of the annotator of the labels or regions.")
    ] = None,
    slide: Annotated[Path | None, typer.Option(help="Slide of the regions.")] = None,
    classes: ClassOption = None,
    skip_classes: SkipClassOption = None,
    ignore_bounds: IgnoreBoundsOption = False,
    drawn_mpp: DrawnMppOption = None,
    cut: Annotated[
        Path | None,
        typer.Option(help="Slides (file, folder or table): cut drawn regions into new images."),
    ] = None,
    crops: Annotated[Path, typer.Option(help="Folder for the crops of --cut.")] = Path("crops"),
    mpp: Annotated[
        float, typer.Option(min=0.01, max=100, help="Micrometres per pixel of the crops.")
    ] = 0.5,
    head: Annotated[
        Literal["softmax", "sigmoid"], typer.Option(help="Output head of the model.")
    ] = "sigmoid",
    as_: As = None,
) -> None:
    """Import images, labels, regions or a model's calls into a study. Research use only.

    Example: glomerulab annotate import study.db --labels old.json --annotator anna
    """
    require_inputs(images, labels, regions, model, slide, cut)
    from glomerulab.apps.annotation.store.database import open_store
    from glomerulab.errors import ConfigError
    from glomerulab.slides.regions.features import DEFAULT_OPTIONS

    given = [one for one in (images, labels, regions, model, cut) if one is not None]
    if len(given) != 1:
        raise ConfigError("give exactly one of --images, --labels, --regions, --model and --cut")
    if (labels is not None or regions is not None) and annotator is None:
        raise ConfigError("labels and regions need their annotator; add --annotator LOGIN")
    options = region_options(
        classes, skip_classes, ignore_bounds=ignore_bounds, drawn_mpp=drawn_mpp
    )
    if regions is None and (options != DEFAULT_OPTIONS or slide is not None):
        raise ConfigError(
            "--slide, --class, --skip-class, --ignore-bounds and --drawn-mpp say how regions are "
            "read; give --regions with them"
        )
    with open_store(database) as store:
        by = acting_owner(store, as_)
        if images is not None:
            _import_images(store, images, by)
        elif labels is not None:
            _import_labels(store, labels, str(annotator), by)
        elif regions is not None:
            _import_regions(store, regions, slide, str(annotator), options)
        elif model is not None:
            _import_model(store, model, head, by)
        else:
            _cut(store, given[0], crops, mpp, by)


def export(
    database: Database,
    *,
    what: Annotated[
        What,
        typer.Option(
            help="labels (settled), soft (and shares of readers), annotations (latest), history "
            "(every version), audit (the ledger), regions, or masks of structures."
        ),
    ] = "labels",
    out: Annotated[
        Path,
        typer.Option(
            help="labels: .csv or .parquet manifest, or the paper's .json, .jsonl or folder; "
            "soft: manifest; annotations, history: .csv; audit: .jsonl or .csv; regions: .geojson; "
            "masks: folder."
        ),
    ],
    annotator: Annotated[
        str | None,
        typer.Option(
            help="labels: those of this annotator instead of the settled ones; masks: shapes of "
            "this annotator."
        ),
    ] = None,
    slide: Annotated[
        Path | None,
        typer.Option(help="regions: of this slide; masks: of this slide, folder or slides table."),
    ] = None,
    mpp: Annotated[
        float, typer.Option(min=0.01, max=100, help="masks: micrometres per pixel.")
    ] = 1.0,
    as_: As = None,
) -> None:
    """Write a study, or a part of it, to files. Research use only.

    Prints the head of the ledger: keep it elsewhere, and `annotate verify --head` proves later that
    no entry up to it was altered.

    Example: glomerulab annotate export study.db --out labels.json
    """
    from glomerulab.apps.annotation.store.database import open_store
    from glomerulab.apps.annotation.store.ledger import read_head

    with open_store(database) as store:
        by = acting_owner(store, as_)
        if what in {"labels", "soft"}:
            written = _export_labels(store, out, annotator, by, soft=what == "soft")
        elif what in {"annotations", "history"}:
            written = _export_annotations(store, out, by, every_version=what == "history")
        elif what == "audit":
            written = _export_ledger(store, out)
        elif what == "masks":
            written = _export_masks(store, out, slide, annotator=annotator, mpp=mpp, by=by)
        else:
            written = _export_regions(store, out, slide, by)
        typer.echo(f"Written: {out}, {written}. Head: {read_head(store)}. Research use only.")


def _import_images(store: "Store", manifest: Path, by: str) -> None:
    from glomerulab.apps.annotation.store.adjudications import list_image_readings
    from glomerulab.apps.annotation.store.study import (
        add_images,
        images_from_manifest,
        read_study,
    )
    from glomerulab.cohort.import_folder import read_images

    study = read_study(store)
    cohort = read_images(manifest, study.taxonomy)
    images = images_from_manifest(cohort, root=study.image_root)
    if manifest.is_dir():  # it also holds the crops of boxes, which are images of the study
        known = {one.image_path for one in list_image_readings(store, by=by)}
        images = [one for one in images if one.image_path not in known]
    n_new = add_images(store, images, by=by)
    typer.echo(f"{n_new} new images; assign readers with `glomerulab annotate distribute`")


def _import_labels(store: "Store", source: Path, annotator: str, by: str) -> None:
    from glomerulab.apps.annotation.store.imports import import_labels
    from glomerulab.apps.annotation.store.study import read_study
    from glomerulab.cohort.manifest import read_manifest
    from glomerulab.cohort.paper_labels import import_paper_labels

    taxonomy = read_study(store).taxonomy
    is_table = source.suffix.lower() in {".csv", ".parquet"}
    read = read_manifest if is_table else import_paper_labels
    done = import_labels(store, read(source, taxonomy), login=annotator, by=by)
    typer.echo(
        f"{done.n_imported} readings of {annotator} imported; {done.n_already_read} images read "
        f"already, {done.n_without_labels} without labels, {len(done.not_in_study)} not in study"
    )
    for image_id in done.not_in_study[:MAX_NAMED]:
        typer.echo(f"  not in the study: {image_id}")


def _import_regions(
    store: "Store", source: Path, slide: Path | None, annotator: str, options: "RegionOptions"
) -> None:
    """Import a region file; raise an error at the end if some regions could not be read."""
    from glomerulab.apps.annotation.region_sync import import_region_file
    from glomerulab.errors import ConfigError, RegionError
    from glomerulab.runtime.progress import show_progress

    if slide is None:
        raise ConfigError("regions need their slide; add --slide FILE")
    failures: list[InvalidRegion] = []
    notes: list[RegionNote] = []
    n_new, n_existing = import_region_file(
        store,
        source,
        slide,
        login=annotator,
        options=options,
        invalid=failures,
        notes=notes,
        track=show_progress,
    )
    typer.echo(f"{n_new} regions of {annotator} imported, {n_existing} imported before")
    for note in notes:
        typer.echo(note.en, err=True)
    for failure in failures:
        typer.echo(f"  {failure.region_id}: {failure.reason}", err=True)
    if failures:
        raise RegionError(
            f"{len(failures)} region(s) could not be imported; see the list above",
            where=str(source),
        )


def _import_model(
    store: "Store", predictions: Path, head: Literal["softmax", "sigmoid"], by: str
) -> None:
    from glomerulab.apps.annotation.store.imports import import_model_calls
    from glomerulab.apps.annotation.store.study import read_study
    from glomerulab.predictions import read_predictions

    table = read_predictions(predictions, read_study(store).taxonomy, head=head)
    n_images = import_model_calls(store, table, source=predictions.name, by=by)
    typer.echo(f"probabilities of {n_images} images imported")


def _cut(store: "Store", slides: Path, crops: Path, mpp: float, by: str) -> None:
    """Cut drawn regions; raise an error at the end if some could not be cut."""
    from glomerulab.apps.annotation.region_crops import crop_regions
    from glomerulab.cohort.slides_table import read_slides
    from glomerulab.errors import RegionError

    done = crop_regions(store, read_slides(slides), out=crops, by=by, mpp=mpp)
    typer.echo(f"{done.n_added} new images, {done.n_existing} cut before")
    for doubt in done.scale_warnings:
        typer.echo(f"warning: {doubt}", err=True)
    for region_id, counted in done.repeated.items():
        typer.echo(f"  {region_id}: not cut, since it shares most of its area with {counted}")
    for region_id in done.changed:
        typer.echo(f"  {region_id}: changed since it was cut; its image stays as it was")
    for region_id, reason in done.failures.items():
        typer.echo(f"  {region_id}: {reason}")
    if done.failures:
        raise RegionError(f"{len(done.failures)} region(s) could not be cut; see the list above")


def _export_labels(store: "Store", out: Path, annotator: str | None, by: str, *, soft: bool) -> str:
    from glomerulab.apps.annotation.consensus import unsettled_reasons
    from glomerulab.apps.annotation.exports import annotator_manifest, final_manifest
    from glomerulab.apps.annotation.store.adjudications import list_image_readings
    from glomerulab.apps.annotation.store.annotations import list_annotations
    from glomerulab.apps.annotation.store.study import read_study
    from glomerulab.cohort.manifest import write_manifest
    from glomerulab.cohort.paper_labels import write_paper_labels
    from glomerulab.errors import ConfigError

    study, images = read_study(store), list_image_readings(store, by=by)
    is_manifest = out.suffix.lower() in {".csv", ".parquet"}
    if soft and (annotator is not None or not is_manifest):
        raise ConfigError(
            "soft labels combine all annotators in a manifest; give --out FILE.csv or .parquet, "
            "without --annotator"
        )
    if annotator is None:
        manifest = final_manifest(images, study, soft=soft)
        reasons = unsettled_reasons(images, study.taxonomy, n_readers=study.settings.n_readers)
        summary = (
            f"{len(manifest.table)} images, {len(reasons)} of them not settled: their labels "
            "unknown"
        )
        for image_id, reason in list(reasons.items())[:MAX_NAMED]:
            typer.echo(f"  not settled: {image_id}: {reason}", err=True)
        if len(reasons) > MAX_NAMED:
            typer.echo(f"  and {len(reasons) - MAX_NAMED} more not settled", err=True)
    else:
        annotations = list_annotations(store, by=by)
        manifest = annotator_manifest(images, annotations, study, login=annotator)
        summary = f"{len(manifest.table)} images labelled by {annotator}"
    if is_manifest:
        write_manifest(manifest, out)
    else:
        write_paper_labels(manifest, out)
    return summary


def _export_annotations(store: "Store", out: Path, by: str, *, every_version: bool) -> str:
    from glomerulab.apps.annotation.exports import annotations_table, write_table
    from glomerulab.apps.annotation.store.adjudications import list_image_readings
    from glomerulab.apps.annotation.store.annotations import list_annotations
    from glomerulab.apps.annotation.store.study import read_study

    annotations = list_annotations(store, by=by, every_version=every_version)
    images = {one.image.image_id: one.image for one in list_image_readings(store, by=by)}
    write_table(annotations_table(annotations, images, read_study(store).taxonomy.label_ids), out)
    return f"{len(annotations)} annotations"


def _export_ledger(store: "Store", out: Path) -> str:
    from glomerulab.apps.annotation.exports import write_events
    from glomerulab.apps.annotation.store.ledger import iterate_events

    return f"{write_events(iterate_events(store), out)} entries"


def _export_regions(store: "Store", out: Path, slide: Path | None, by: str) -> str:
    from glomerulab.apps.annotation.region_sync import export_region_file
    from glomerulab.errors import ConfigError

    if slide is None:
        raise ConfigError("regions are exported for one slide; add --slide FILE")
    return f"{export_region_file(store, out, slide, login=by)} regions"


def _export_masks(
    store: "Store",
    out: Path,
    slides: Path | None,
    *,
    annotator: str | None,
    mpp: float,
    by: str,
) -> str:
    """Write masks; raise an error at the end if those of some slides could not be written."""
    from glomerulab.apps.annotation.structure_masks import write_masks
    from glomerulab.cohort.slides_table import read_slides
    from glomerulab.errors import ConfigError, RegionError
    from glomerulab.runtime.messages import count_noun

    if slides is None:
        raise ConfigError("masks are drawn on slides; add --slide with a slide, folder or table")
    done = write_masks(store, read_slides(slides), out, by=by, mpp=mpp, annotator=annotator)
    for slide_id in done.without_shapes[:MAX_NAMED]:
        typer.echo(f"  no shapes, so no masks: {slide_id}", err=True)
    if done.n_proposals:
        typer.echo(
            f"  {count_noun(done.n_proposals, 'proposal')} left out, since nobody accepted or "
            "changed them",
            err=True,
        )
    for slide_id, reason in done.failures.items():
        typer.echo(f"  {slide_id}: {reason}", err=True)
    if done.failures:
        raise RegionError(
            f"the masks of {count_noun(len(done.failures), 'slide')} could not be written; see "
            "the list above",
            where=str(out),
        )
    shapes = ", ".join(f"{n} {name}" for name, n in done.n_shapes.items())
    return f"masks of {count_noun(done.n_slides, 'slide')} at {mpp:g} µm per pixel ({shapes})"
