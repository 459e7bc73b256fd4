"""An external set beside a run, judged with what was fitted on the run's own validation part.

Nothing is fitted on the external set: no temperature, no conformal threshold.
"""

from dataclasses import replace

import pandas as pd

from glomerulab.cohort.manifest import Manifest
from glomerulab.evaluation.run_tables import EXTERNAL, RunTables
from glomerulab.evaluation.warnings import EvaluationWarning

__all__ = ["external_caveats", "with_external_set"]


def with_external_set(run: RunTables, predictions: pd.DataFrame, manifest: Manifest) -> RunTables:
    """Return a run's tables in which an external set stands as a part of its own.

    Parameters
    ----------
    run : RunTables
    predictions : DataFrame
        What the run's model said of the external images.
    manifest : Manifest
        The external images.

    Returns
    -------
    RunTables
        Its predictions are those of the validation part, for fitting, and of the external set.
    """
    validation = run.predictions.loc[
        (run.predictions["split"] == "validation").fillna(value=False).astype(bool)
    ]
    of_set = predictions.assign(split=pd.array([EXTERNAL] * len(predictions), dtype="string"))
    both = [
        _absolute(run.manifest),
        _absolute(manifest).drop(columns="fold").assign(split=EXTERNAL),
    ]
    table = pd.concat(both, ignore_index=True)
    table["split"] = table["split"].astype("string")
    return replace(
        run,
        predictions=pd.concat([validation, of_set], ignore_index=True),
        manifest=replace(run.manifest, table=table),
    )


def external_caveats(run: RunTables, manifest: Manifest) -> tuple[EvaluationWarning, ...]:
    """Find what stands against calling a set external, or against comparing it.

    Parameters
    ----------
    run : RunTables
        Of the model, without the external set.
    manifest : Manifest
        The external images.

    Returns
    -------
    tuple of Caveat
    """
    found = []
    shared = set(run.manifest.table["patient_id"].dropna()) & set(
        manifest.table["patient_id"].dropna()
    )
    if shared:
        text = (
            f"{len(shared)} patient ids of the external set, such as {min(shared)}, stand in the "
            "run's own cohort too. Unless two hospitals number alike by chance, the set is not "
            "external."
        )
        found.append(EvaluationWarning("External set shares patients", text, severe=True))
    if _is_normalized(run.manifest) != _is_normalized(manifest):
        text = (
            "Only one of the two was stain-normalised. Run `glomerulab normalize` on the external "
            "set with the run's targets, or the scores tell of stains."
        )
        found.append(EvaluationWarning("Stains treated differently", text, severe=True))
    here, there = (m.table["mpp"].dropna() for m in (run.manifest, manifest))
    if len(here) and len(there):
        ratio = float(there.median()) / float(here.median())
        if not 0.8 <= ratio <= 1.25:
            text = (
                f"The external crops have a median of {there.median():.2f} µm per pixel, the run's "
                f"own {here.median():.2f}. Extract both at one resolution."
            )
            found.append(EvaluationWarning("Different resolution", text))
    return tuple(found)


def _absolute(manifest: Manifest) -> pd.DataFrame:
    paths = pd.array([str(path) for path in manifest.image_paths()], dtype="string")
    return manifest.table.assign(image_path=paths)


def _is_normalized(manifest: Manifest) -> bool:
    table = manifest.table
    return "stain_status" in table and bool((table["stain_status"] == "normalized").any())
