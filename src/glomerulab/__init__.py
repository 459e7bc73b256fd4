"""From renal-biopsy slides to glomerulus labels, and from labels to a model that can be trusted.

Research use only: nothing in this package is a medical device.

The names below are loaded on first use, so that ``import glomerulab`` is fast and torch is imported
only by what trains or applies a network.

Examples
--------
Synthetic slides, in a temporary folder:

>>> import tempfile
>>> from pathlib import Path
>>> import numpy as np
>>> import glomerulab
>>> from glomerulab.phantom.crops import write_phantom_crops
>>> from glomerulab.phantom.slides import write_phantom_slides
>>> temporary = tempfile.TemporaryDirectory()
>>> folder = Path(temporary.name)
>>> slides = write_phantom_slides(folder / "slides", n_patients=1, n_glomeruli=2, mpp=2.0)

Read a region of a slide at a resolution, and its annotations:

>>> slide_path = folder / "slides" / "slides" / "phantom-p001-s001-he.tif"
>>> regions = glomerulab.read_regions(
...     folder / "slides" / "regions" / "phantom-p001-s001-he.geojson"
... )
>>> with glomerulab.open_slide(slide_path) as slide:
...     crop = slide.read_region(regions[0].box().grown(0.1), mpp=4.0)
...     corner = slide.read_region(glomerulab.Box(0, 0, 100, 50))
>>> corner.shape
(50, 100, 3)
>>> isinstance(slide, glomerulab.Slide) and isinstance(regions[0], glomerulab.Region)
True
>>> glomerulab.write_regions(regions, folder / "regions.csv")
>>> [region.region_id for region in glomerulab.read_regions(folder / "regions.csv")]
['phantom-p001-s001-he-g01', 'phantom-p001-s001-he-g02']

Normalise the stains of an image to those of another:

>>> manifest_path = write_phantom_crops(
...     folder / "crops", n_patients=6, n_per_patient=4, size=64, mpp=3.0, stains=["HE"]
... )
>>> manifest = glomerulab.read_manifest(manifest_path)
>>> first, second = (glomerulab.read_image(path) for path in manifest.image_paths()[:2])
>>> normalizer = glomerulab.StainNormalizer.fit(first, "HE")
>>> normalizer(second).shape
(64, 64, 3)

Split a cohort by patient:

>>> cohort = glomerulab.split_by_patient(manifest, ratios=(3, 2, 1), seed=0)
>>> cohort.table.groupby("split")["patient_id"].nunique().to_dict()
{'test': 1, 'train': 3, 'validation': 2}

Score the predictions of any model, with intervals from a bootstrap over patients:

>>> labels = cohort.labels()
>>> table = glomerulab.predictions_table(
...     cohort.table, 0.6 * labels / labels.sum(axis=1, keepdims=True) + 0.1, cohort.taxonomy
... )
>>> eval_set = glomerulab.eval_set_of_split(
...     table, cohort.taxonomy, head="softmax", split="train"
... )
>>> scores = glomerulab.score_table(eval_set).set_index("score")
>>> float(scores.loc["accuracy", "value"])
1.0
>>> table.to_csv(folder / "predictions.csv", index=False)
>>> len(glomerulab.read_predictions(folder / "predictions.csv", cohort.taxonomy))
24

Build a network:

>>> network = glomerulab.create_model("improved_seresnet_small", 4)
>>> sum(parameter.numel() for parameter in network.parameters()) > 100_000
True

Errors of the package have one base class:

>>> try:
...     glomerulab.read_manifest(folder / "missing.csv")
... except glomerulab.GlomerulabError as error:
...     print(type(error).__name__)
ManifestError
>>> temporary.cleanup()

Training, prediction, counting and reports are shown in the guide "Use it from Python".
"""

from importlib import import_module
from typing import TYPE_CHECKING

from glomerulab.runtime.threads import limit_threads

if TYPE_CHECKING:
    from glomerulab.cases.case import build_cases
    from glomerulab.cases.case_folder import read_case_folder
    from glomerulab.cohort.manifest import read_manifest
    from glomerulab.cohort.splits import split_by_patient
    from glomerulab.errors import GlomerulabError
    from glomerulab.evaluation.eval_set import eval_set_of_split
    from glomerulab.evaluation.scores import score_table
    from glomerulab.geometry import Box, Region
    from glomerulab.images import read_image
    from glomerulab.inference.model import TrainedModel, load_model
    from glomerulab.models.registry import create_model
    from glomerulab.pipeline.predict import predict
    from glomerulab.pipeline.predict_inputs import PredictSettings
    from glomerulab.predictions import predictions_table, read_predictions
    from glomerulab.reports.case.write import write_case_reports
    from glomerulab.slides.regions.files import read_regions, write_regions
    from glomerulab.slides.slide import Slide, open_slide
    from glomerulab.stain.normalize import StainNormalizer
    from glomerulab.training.config import TrainConfig
    from glomerulab.training.run import train

limit_threads()  # before a numeric library is loaded

__all__ = [
    "Box",
    "GlomerulabError",
    "PredictSettings",
    "Region",
    "Slide",
    "StainNormalizer",
    "TrainConfig",
    "TrainedModel",
    "build_cases",
    "create_model",
    "eval_set_of_split",
    "load_model",
    "open_slide",
    "predict",
    "predictions_table",
    "read_case_folder",
    "read_image",
    "read_manifest",
    "read_predictions",
    "read_regions",
    "score_table",
    "split_by_patient",
    "train",
    "write_case_reports",
    "write_regions",
]

_MODULES = {
    "Box": "geometry",
    "GlomerulabError": "errors",
    "PredictSettings": "pipeline.predict_inputs",
    "Region": "geometry",
    "Slide": "slides.slide",
    "StainNormalizer": "stain.normalize",
    "TrainConfig": "training.config",
    "TrainedModel": "inference.model",
    "build_cases": "cases.case",
    "create_model": "models.registry",
    "eval_set_of_split": "evaluation.eval_set",
    "load_model": "inference.model",
    "open_slide": "slides.slide",
    "predict": "pipeline.predict",
    "predictions_table": "predictions",
    "read_case_folder": "cases.case_folder",
    "read_image": "images",
    "read_manifest": "cohort.manifest",
    "read_predictions": "predictions",
    "read_regions": "slides.regions.files",
    "score_table": "evaluation.scores",
    "split_by_patient": "cohort.splits",
    "train": "training.run",
    "write_case_reports": "reports.case.write",
    "write_regions": "slides.regions.files",
}


if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> object:
        """Import a name of `__all__` on first use."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the names of the package, whether they are loaded or not."""
    return sorted({*globals(), *__all__})
