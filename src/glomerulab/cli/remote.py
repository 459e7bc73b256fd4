"""Arguments that are URLs of an object storage: copied to this machine before, uploaded after."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from glomerulab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["local_files"]

S3 = re.compile(r"s3:/{1,2}")
"""`Path` leaves one slash."""
COMMANDS = {
    "augment",
    "compare",
    "crossval",
    "distill",
    "embed",
    "export",
    "extract",
    "manifest check",
    "manifest contact-sheet",
    "manifest export",
    "manifest import",
    "normalize",
    "phantom",
    "predict",
    "quickstart",
    "search",
    "segment",
    "slide deidentify",
    "slide info",
    "slide thumbnail",
    "split",
    "stain-check",
    "train",
    "train-segmenter",
}
"""Those that write to OUT alone; the others change what they read, or stay running."""
TABLES = {".csv", ".parquet"}
TAXONOMY_FILE = "taxonomy.toml"


@contextmanager
def local_files(command: str, params: dict[str, Any]) -> Iterator[None]:
    """Put paths of this machine in place of URLs; upload the output if the command ends.

    A command that ends with failures of single items has written its output; one that raises an
    error has not, and what it wrote stays on this machine, to be continued.
    """
    urls = {
        name: S3.sub("s3://", str(value), count=1)
        for name, value in params.items()
        if isinstance(value, str | Path) and S3.match(str(value))
    }
    if not urls:
        yield
        return
    from glomerulab.runtime.storage import begin_output, local_copies

    if command not in COMMANDS:
        raise ConfigError(
            f"`glomerulab {command}` works in its folder and takes no s3:// URL; copy the folder "
            "to this machine, and back",
            where=next(iter(urls.values())),
        )
    is_clustered = bool(params.get("scheduler") or params.get("cluster"))
    # The processes of a cohort fetch the slides of a case themselves.
    is_cohort = command == "predict" and bool(
        is_clustered or params.get("cohort") or params.get("part")
    )
    with_files = not is_cohort and params.get("near_duplicates") is not False
    if is_clustered and not _is_here(params, urls):
        _check_elsewhere(command, urls)
    out = urls.pop("out", None)
    for option, url in urls.items():
        params[option] = _input(url, with_files=with_files)
    if out is None:
        yield
        return
    if Path(out).suffix.lower() in TABLES:
        local_copies({_beside(out)})
    params["out"] = begin_output(out)
    try:
        yield
    except typer.Exit:  # as after failures of single items
        _upload(out)
        raise
    _upload(out)


def _is_here(params: Mapping[str, Any], urls: Mapping[str, str]) -> bool:
    """Whether the workers of a cluster are processes of this machine, which see the copies."""
    from glomerulab.runtime.cluster_file import read_cluster_file
    from glomerulab.runtime.storage import local_copy

    if params.get("scheduler"):
        return False
    file = local_copy(urls["cluster"]) if "cluster" in urls else Path(params["cluster"])
    return read_cluster_file(file).kind == "local"


def _check_elsewhere(command: str, urls: Mapping[str, str]) -> None:
    """Refuse what workers on other machines would not find, or could not write to."""
    if command != "predict":
        raise ConfigError(
            f"`glomerulab {command}` copies objects to this machine alone, and workers on other "
            "machines need them too; give paths that all machines see",
            where=next(iter(urls.values())),
        )
    if "out" in urls:
        raise ConfigError(
            "workers on other machines cannot write to an --out in the storage; give a folder that "
            "all machines see, and copy it to the storage when it is done",
            where=urls["out"],
        )


def _beside(table: str) -> str:
    """Return the URL of the taxonomy of a manifest."""
    return f"{table.rpartition('/')[0]}/{TAXONOMY_FILE}"


def _input(url: str, *, with_files: bool) -> Path:
    """Copy a file or a folder, and the files without which it cannot be read."""
    from glomerulab.runtime.storage import local_copies, local_copy

    place = local_copy(url)
    if place.suffix.lower() in TABLES and place.is_file():
        named = set(_named_files(place)) if with_files else set()
        local_copies({_beside(url), *named})
    return place


def _named_files(table: Path) -> "Iterable[str]":
    """Return the URLs of the images or slides that a table names."""
    from glomerulab.errors import ManifestError
    from glomerulab.runtime.files import stated_path
    from glomerulab.runtime.parquet import read_parquet
    from glomerulab.runtime.storage import url_of
    from glomerulab.runtime.tables import TableSchema, read_cells

    schema = TableSchema("table", ("image_path", "slide_path"), error=ManifestError)
    if table.suffix.lower() == ".csv":
        frame = read_cells(table, name="table", error=ManifestError).frame()
    else:
        frame = read_parquet(
            table,
            name="table",
            error=ManifestError,
            choose=lambda names: [one for one in names if one in schema.spelling(names)],
        )
    frame = frame.rename(columns=schema.spelling([str(name) for name in frame]))
    for column in schema.columns:
        for name in frame[column].dropna().unique() if column in frame else ():
            url = url_of(stated_path(table.parent, str(name)))
            if url is not None:
                yield url


def _upload(url: str) -> None:
    """Upload an output, and the taxonomy that a manifest has beside it."""
    from glomerulab.runtime.messages import count_noun
    from glomerulab.runtime.storage import finish_output, local_path

    beside = _beside(url)
    if Path(url).suffix.lower() in TABLES and local_path(beside).is_file():
        finish_output(beside)
    typer.echo(f"Uploaded: {url}, {count_noun(finish_output(url), 'file')}.")
