"""``glomerulab manifest``: import, check, export and display manifests."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.app import CommandGroup
from glomerulab.cli.options import ClusterOption, SchedulerOption, parse_pairs
from glomerulab.errors import ConfigError, ManifestError
from glomerulab.runtime.messages import count_noun

__all__ = ["app"]

if TYPE_CHECKING:
    from glomerulab.cohort.manifest import Manifest

app = CommandGroup(help="Import, check, export and display manifests.")

TABLE_SUFFIXES = {".csv", ".tsv", ".txt"}
NO_PATIENT = {"na", "n/a", "nan", "none", "null", "unknown", "?", "-"}
"""Ids by which other programs write that a patient is not known."""
TABLE_WAYS_OUT = (
    "name the column of the classes with --label-column",
    "name their column with --column patient_id=NAME",
)
FOLDER_WAYS_OUT = (
    "put the images into a folder per label, or name {label} in --pattern",
    "name {patient_id} in --pattern, such as 'case{patient_id}_{n}.png'",
)
JSON_WAYS_OUT = (
    "add their labels to the file",
    "fill the column patient_id of the written manifest",
)

Workers = Annotated[int, typer.Option(min=1, help="Processes that read images.")]
TaxonomyOption = Annotated[
    str, typer.Option(help="Built-in taxonomy or a TOML file with the labels.")
]


@app.command("import")
def import_cohort(
    source: Annotated[
        Path, typer.Argument(help="Folder of images, CSV, or label JSON (file or folder).")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Manifest to write, .csv or .parquet.")],
    taxonomy: TaxonomyOption = "paper",
    image_root: Annotated[
        Path | None, typer.Option(help="Base of the image paths; default: beside SOURCE.")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="Folder: columns in the paths, such as 'case{patient_id}_{stain}_{n}.png' or "
            "'{patient_id}/{label}/*'."
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="CSV: MANIFEST_COLUMN=NAME, such as image_path=image; repeatable."),
    ] = None,
    constant: Annotated[
        list[str] | None,
        typer.Option("--set", help="COLUMN=VALUE for every row, such as stain=HE; repeatable."),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="CSV: the column that names the class.")
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", help="NAME=LABEL where they differ; repeatable."),
    ] = None,
    value: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN:OLD=NEW, such as stain:sil=PASM; repeatable."),
    ] = None,
) -> None:
    """Convert a folder of images, a CSV, or the paper's label JSON to a manifest.

    Example: glomerulab manifest import labels.csv --out manifest.csv --column image_path=image
    """
    from glomerulab.cohort.import_csv import ColumnMapping, import_csv
    from glomerulab.cohort.import_folder import import_folder
    from glomerulab.cohort.manifest import write_manifest
    from glomerulab.cohort.paper_labels import import_paper_labels
    from glomerulab.runtime.files import make_folder
    from glomerulab.taxonomy import load_taxonomy

    labels = load_taxonomy(taxonomy)
    constants = parse_pairs(constant, "--set")
    is_json = False
    is_table = source.suffix.lower() in TABLE_SUFFIXES and not source.is_dir()
    if is_table:
        if pattern:
            raise ConfigError(
                "--pattern is for a folder of images; map the columns of a CSV with --column"
            )
        mapping = ColumnMapping(
            columns=parse_pairs(column, "--column"),
            constants=constants,
            label_column=label_column,
            classes=parse_pairs(class_, "--class"),
            values=_values(value),
        )
        manifest = import_csv(source, mapping, labels, image_root=image_root)
    else:
        is_json = _is_labels_json(source) and not (source.is_dir() and pattern)
        if column or label_column or (is_json and (class_ or value)):
            raise ConfigError(
                "--column and --label-column are for a CSV, --class and --value for a CSV or a "
                "folder of images; what is in the paths of a folder is described with --pattern"
            )
        if is_json:
            if pattern:
                raise ConfigError("--pattern is for a folder of images, not for label JSON")
            manifest = import_paper_labels(source, labels, image_root=image_root)
        elif image_root is not None:
            raise ConfigError(
                "--image-root is for a CSV or label JSON; the images of a folder are in it"
            )
        else:
            manifest = import_folder(
                source,
                labels,
                pattern=pattern,
                classes=parse_pairs(class_, "--class"),
                values=_values(value),
            )
        manifest = manifest.with_constants(constants)
    make_folder(out.parent)
    write_manifest(manifest, out)
    typer.echo(f"Written: {out}, {len(manifest.table)} images. Research use only.")
    ways_out = TABLE_WAYS_OUT if is_table else JSON_WAYS_OUT if is_json else FOLDER_WAYS_OUT
    for warning in _gaps(manifest, ways_out):
        typer.echo(f"warning: {warning}", err=True)
    missing = [path for path in manifest.image_paths() if not path.is_file()]
    if missing:
        typer.echo(
            f"warning: {len(missing)} of {len(manifest.table)} images do not exist, the first is "
            f"{missing[0]}; set the base of their paths with --image-root",
            err=True,
        )


@app.command()
def check(
    manifest: Annotated[Path, typer.Argument(help="Manifest, CSV or Parquet.")],
    *,
    pixels: Annotated[bool, typer.Option(help="Decode every image.")] = True,
    allow_shared_patients: Annotated[
        bool, typer.Option(help="For a split by image: patients may be in several parts.")
    ] = False,
    workers: Workers = 1,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
) -> None:
    """List the problems of a manifest by line; exit code 1 if there is any.

    Example: glomerulab manifest check cohort/manifest.csv --workers 2
    """
    from glomerulab.cohort.manifest import parse_manifest
    from glomerulab.cohort.validation import validate_manifest
    from glomerulab.runtime.cluster import open_workers
    from glomerulab.runtime.progress import show_progress

    cohort, problems = parse_manifest(manifest)
    with open_workers(scheduler, cluster) as pool:
        problems += validate_manifest(
            cohort,
            check_pixels=pixels,
            allow_shared_patients=allow_shared_patients,
            n_workers=workers,
            workers=pool,
            track=show_progress,
        )
    problems.sort(key=lambda problem: -1 if problem.row is None else problem.row)
    for problem in problems:
        typer.echo(str(problem))
    if problems:
        raise ManifestError(
            f"the manifest has {count_noun(len(problems), 'problem')}, listed above",
            where=str(manifest),
        )
    typer.echo(f"{manifest}: {len(cohort.table)} images, no problem found. Research use only.")


@app.command()
def export(
    manifest: Annotated[Path, typer.Argument(help="Manifest, CSV or Parquet.")],
    *,
    out: Annotated[
        Path, typer.Option(help="labels.json (list), labels.jsonl, or a folder (file per image).")
    ],
) -> None:
    """Write the labels as the paper's JSON, Chinese keys as in its Fig. 5b.

    Example: glomerulab manifest export cohort/manifest.csv --out labels.json
    """
    from glomerulab.cohort.manifest import read_manifest
    from glomerulab.cohort.paper_labels import write_paper_labels

    cohort = read_manifest(manifest)
    write_paper_labels(cohort, out)
    typer.echo(f"Written: {out}, {len(cohort.table)} images. Research use only.")


@app.command("contact-sheet")
def contact_sheet(
    manifest: Annotated[Path, typer.Argument(help="Manifest, CSV or Parquet.")],
    *,
    out: Annotated[Path, typer.Option(help="Sheet to write, .png or .jpg.")],
    per_group: Annotated[int, typer.Option(min=1, help="Images per class and stain.")] = 8,
    cell: Annotated[int, typer.Option(min=16, help="Side of an image in pixels.")] = 128,
    workers: Workers = 1,
) -> None:
    """Draw a contact sheet of the images by class and stain, with their names.

    Example: glomerulab manifest contact-sheet cohort/manifest.csv --out sheet.png --per-group 10
    """
    from glomerulab.cohort.contact_sheet import write_contact_sheet
    from glomerulab.cohort.manifest import read_manifest
    from glomerulab.runtime.progress import show_progress

    errors = write_contact_sheet(
        read_manifest(manifest),
        out,
        n_per_group=per_group,
        cell_px=cell,
        n_workers=workers,
        track=show_progress,
    )
    typer.echo(f"Written: {out}. Research use only.")
    for error in errors:
        typer.echo(str(error))
    if errors:
        raise ManifestError(
            f"{count_noun(len(errors), 'image')}, listed above, cannot be read", where=str(manifest)
        )


def _gaps(manifest: "Manifest", ways_out: tuple[str, str]) -> list[str]:
    """Return what is unknown of the images, with the ways to give labels and patients."""
    import numpy as np

    from glomerulab.cohort.leakage import look_alike_message, look_alike_patients

    n = len(manifest.table)
    n_unlabelled = int(np.isnan(manifest.labels()).all(axis=1).sum())
    n_nameless = int(manifest.table["patient_id"].isna().sum())
    found = []
    if n_unlabelled:
        found.append(f"{n_unlabelled} of {n} images have no label; {ways_out[0]}")
    if n_nameless:
        found.append(
            f"{n_nameless} of {n} images have no patient, by whom a cohort is split; {ways_out[1]}"
        )
    patients = manifest.table["patient_id"].dropna().astype(str)
    for name, count in patients[patients.str.casefold().isin(NO_PATIENT)].value_counts().items():
        found.append(
            f"{count} of {n} images are of one patient called {str(name)!r}; empty the cells if "
            "this means that the patient is not known"
        )
    found += map(look_alike_message, look_alike_patients(manifest.table))
    return found


def _values(given: list[str] | None) -> dict[tuple[str, str], str]:
    """Parse COLUMN:OLD=NEW options."""
    values = {}
    for key, new in parse_pairs(given, "--value").items():
        column, colon, old = key.partition(":")
        if not (column and colon and old):
            raise ConfigError(f"a value must be COLUMN:OLD=NEW, got {key}={new!r}", where="--value")
        values[column, old] = new
    return values


def _is_labels_json(source: Path) -> bool:
    if source.is_dir():
        return any(source.glob("*.json"))
    if source.suffix.lower() in {".json", ".jsonl"}:
        return True
    raise ManifestError(
        "the source must be a folder, or a .csv, .tsv, .txt, .json or .jsonl file",
        where=str(source),
    )
