"""Segmenters by the shipped recipe: phantom slides, kidney compartments, glomeruli of real fields.

    python benchmarks/segmenter.py phantom --folder DIR
    python benchmarks/segmenter.py compartments --folder DIR --data kidney_compartments
    python benchmarks/segmenter.py fields --folder DIR --data aidpath_fields
    python benchmarks/segmenter.py crops --folder DIR --data aidpath_glomeruli

``phantom`` trains on the slides of three of the four scanners, and scores the slides of patients
that it never saw: of the same scanners, and of the fourth. The others are cross-validated in five
folds by source image, field, and slide. The fields and the crops of AIDPATH show the same slides:
each is trained and scored by itself, never one on the other. ``--set`` changes the recipe, such as
``--set mpp=2.0``. Results in DIR are reused.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from skimage.morphology import h_maxima

from glomerulab.cli.options import parse_settings
from glomerulab.evaluation.segmentation import StructureScores, score_structures, scores_table
from glomerulab.inference.segmenter import Probabilities, Segmenter, open_segmenter
from glomerulab.inference.slide_segmenter import segment_image
from glomerulab.phantom.slides import write_phantom_slides
from glomerulab.pipeline.train_segmenter import score_fields, train_segmenter
from glomerulab.runtime.shipped import shipped_configs
from glomerulab.structures.maps import StructureMap
from glomerulab.training.segmentation.config import SegmenterConfig, read_segmenter_config
from glomerulab.training.segmentation.fields import Field
from glomerulab.training.segmentation.sets import open_fields

PHANTOM_SEED, N_PATIENTS, N_GLOMERULI = 11, 12, 6
N_TRAINING = 8
UNSEEN = "phantom-scanner-1"
LEAST_PEAK_PX = 2.0
Bool = npt.NDArray[np.bool_]
ALL = (
    "cortex",
    "medulla",
    "fibrosis",
    "tubule",
    "atrophic_tubule",
    "artery",
    "capillary",
    "glomerulus",
    "sclerosed_glomerulus",
    "tuft",
)
COMPARTMENTS = {  # class: structure, and µm per pixel of its patches (5x, 10x and 40x)
    "artery": ("artery", 1.0),
    "distal_tubule": ("distal_tubule", 1.0),
    "proximal_tubule": ("proximal_tubule", 1.0),
    "glomerulus_capsule": ("glomerulus", 2.0),
    "glomerulus_tuft": ("tuft", 2.0),
    "peritubular_capillary": ("capillary", 0.25),
}


def main() -> None:
    """Run one of the measurements and print its scores."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["phantom", "compartments", "fields", "crops"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    settings = parse_settings(given.settings)
    if given.what == "phantom":
        phantom(given.folder, settings)
        return
    sets = {"compartments": compartments, "fields": fields, "crops": crops}[given.what]
    config = configured(sets(given.data.absolute(), given.folder), given.folder, settings)
    show(train_segmenter(config, folds=5, echo=print).scores, given.what)


def configured(
    sets: Sequence[Mapping[str, object]], folder: Path, settings: Mapping[str, object]
) -> SegmenterConfig:
    """Return the shipped recipe with other sets."""
    changes = {"sets": list(sets), "out": folder / "run", **settings}
    return read_segmenter_config(shipped_configs()["segmenter"], changes)


def compartments(data: Path, folder: Path) -> list[dict[str, object]]:
    """Return one set per class; each knows its own structure alone."""
    table = pd.read_csv(data / "labels.csv")
    table["stain"] = table["stain"].replace({"SIL": "PASM"})
    for column in ("image", "mask"):
        table[column] = [str(data / name) for name in table[column]]
    path = folder.absolute() / "compartments.csv"
    table.to_csv(path, index=False)
    return [
        {
            "name": kind,
            "images": path,
            "where": {"class": kind},
            "values": {"255": structure},
            "knows": [structure],
            "mpp": mpp,
            "group": "source_image",
        }
        for kind, (structure, mpp) in COMPARTMENTS.items()
    ]


def fields(data: Path, folder: Path) -> list[dict[str, object]]:
    """Return the fields of AIDPATH; of which slide each is, is not known."""
    del folder
    return [glomeruli(data / "images", data / "masks", mpp=0.5)]


def crops(data: Path, folder: Path) -> list[dict[str, object]]:
    """Return the crops of AIDPATH, by slide; their scale is lost, and taken for 1 µm."""
    table = pd.read_csv(data / "labels.csv")
    for column in ("image", "mask"):
        table[column] = [str(data / name) for name in table[column]]
    path = folder.absolute() / "crops.csv"
    table.to_csv(path, index=False)
    return [{**glomeruli(path, None, mpp=1.0), "group": "slide_id"}]


def glomeruli(images: Path, masks: Path | None, *, mpp: float) -> dict[str, object]:
    """Return a set of PAS images whose masks are white in glomeruli."""
    given: dict[str, object] = {} if masks is None else {"masks": masks}
    return given | {
        "name": "glomeruli",
        "images": images,
        "values": {"255": "glomerulus"},
        "knows": ["glomerulus"],
        "mpp": mpp,
        "stain": "PAS",
    }


def phantom(folder: Path, settings: Mapping[str, object]) -> None:
    """Train on some patients of three scanners; score others, and the fourth scanner."""
    slides = folder.absolute() / "slides"
    if not (slides / "slides.csv").is_file():
        write_phantom_slides(
            slides,
            n_patients=N_PATIENTS,
            n_glomeruli=N_GLOMERULI,
            mpp=1.0,
            seed=PHANTOM_SEED,
        )
    table = pd.read_csv(slides / "slides.csv")
    patients = sorted(table["patient_id"].unique())
    is_seen = (table["scanner"] != UNSEEN) & table["patient_id"].isin(patients[:N_TRAINING])
    table["part"] = ["train" if seen else "test" for seen in is_seen]
    table["slide_path"] = [str(slides / name) for name in table["slide_path"]]
    table.to_csv(folder / "slides.csv", index=False)
    config = configured([phantom_set(folder, slides, "train")], folder, settings)
    config = config.model_copy(update={"held_out_share": 0.0})
    train_segmenter(config, resume=True, echo=print)
    segmenter = open_segmenter(config.out)
    scanner_of = dict(zip(table["slide_id"], table["scanner"], strict=True))
    test = config.model_copy(
        update={"sets": configured([phantom_set(folder, slides, "test")], folder, settings).sets}
    )
    found = open_fields(test).usable
    for name, some in (
        (
            "unseen patients, seen scanners",
            [f for f in found if scanner_of[f.facts.name] != UNSEEN],
        ),
        ("unseen patients and scanner", [f for f in found if scanner_of[f.facts.name] == UNSEEN]),
    ):
        if some:
            show(score_structures(score_fields(segmenter, some)), name)
            for how, cores in OTHER_CORES.items():
                other = score_structures(score_fields(OtherCores(segmenter, cores), some))
                show([one for one in other if one.objects], f"{name}, {how}")
            print("atrophy share of the cortex, true and found:", shares(segmenter, some))


class OtherCores:
    """A segmenter whose objects start from other cores than those that the network learned."""

    def __init__(self, segmenter: Segmenter, cores: Callable[[Bool], Bool]) -> None:
        self.card = segmenter.card
        self._cores = cores
        self.n_threads, self.threads = segmenter.n_threads, segmenter.threads
        self._segmenter = segmenter

    def probabilities(self, images: npt.NDArray[np.uint8]) -> Probabilities:
        """Return cores that the structure itself gives."""
        found = self._segmenter.probabilities(images)
        numbers = [self.card.structures.index(name) for name in self.card.cores]
        for channel, number in enumerate(numbers, start=len(self.card.structures)):
            for one in found:
                one[channel] = self._cores(one[number] >= 0.5)
        return found


def whole_parts(structure: Bool) -> Bool:
    """Return the structure: an object is what hangs together."""
    return structure


def peaks_of_distance(structure: Bool) -> Bool:
    """Return where the distance to the edge has a peak of `LEAST_PEAK_PX`: classic watershed."""
    distance = ndimage.distance_transform_edt(structure)
    return h_maxima(distance, LEAST_PEAK_PX).astype(bool)


OTHER_CORES = {
    "parts that hang together": whole_parts,
    "watershed of the distance to the edge": peaks_of_distance,
}


def phantom_set(folder: Path, slides: Path, part: str) -> dict[str, object]:
    """Return the phantom slides of a part."""
    return {
        "name": part,
        "images": folder.absolute() / "slides.csv",
        "masks": slides / "structures",
        "where": {"part": part},
        "knows": list(ALL),
    }


def shares(segmenter: Segmenter, some: Sequence[Field]) -> str:
    """Return the share of each slide's cortex that is atrophic tubule, by truth and segmenter."""
    texts = []
    for one in some:
        true, found = [0, 0], [0, 0]
        for window in one.windows():
            pixels, labels = one.read_window(window)
            predicted = segment_image(pixels, segmenter)
            frame = predicted.frame
            truth = StructureMap(frame, labels.present, labels.present, labels.present, labels.core)
            for sums, layers in ((true, truth), (found, predicted)):
                cortex = layers.likely & frame.bit("cortex") > 0
                atrophic = layers.likely & frame.bit("atrophic_tubule") > 0
                sums[0] += int((cortex & atrophic).sum())
                sums[1] += int(cortex.sum())
        texts.append("/".join(f"{100 * part / max(all_, 1):.1f}" for part, all_ in (true, found)))
    return ", ".join(texts)


def show(scores: Sequence[StructureScores], title: str) -> None:
    """Print scores as a table of Markdown."""
    print(f"\n{title}\n")
    print("| structure | stain | images | groups | Dice | recall | precision |")
    print("|---|---|---|---|---|---|---|")
    for row in scores_table(scores).to_dict("records"):
        cells = [
            f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"
            if name in row and pd.notna(row[name])
            else ""
            for name in ("dice", "recall", "precision")
        ]
        facts = (row["structure"], row["stain"], row["n_fields"], row["n_groups"], *cells)
        print("| " + " | ".join(map(str, facts)) + " |")


if __name__ == "__main__":
    main()
