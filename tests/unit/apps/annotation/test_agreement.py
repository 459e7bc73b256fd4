from datetime import UTC, datetime

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from glomerulab.apps.annotation.agreement import EXACT_SET, study_agreement
from glomerulab.apps.annotation.records import Annotation, AnnotationContent
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")


def _annotation(
    login: str, image: int, labels: dict[str, int | None], purpose: str = "first", **content: object
) -> Annotation:
    return Annotation(
        sequence=image,
        assignment_id=image,
        image_id=f"g{image}",
        login=login,
        purpose=purpose,
        version=1,
        content=AnnotationContent(labels, **content),
        seconds=1.0,
        saved_at=datetime(2026, 1, 2, tzinfo=UTC),
        image_sha256=None,
        model_shown=False,
        others_shown=False,
        source="web",
    )


@pytest.fixture
def readings(rng: np.random.Generator) -> tuple[list[Annotation], np.ndarray, dict[str, str]]:
    """Three readers of 60 images of 20 patients, who mostly agree, and `anna` some twice."""
    truth = rng.integers(2, size=(60, 4)) * [0, 1, 1, 1]
    flips = rng.random((4, 60, 4)) < 0.15
    flags = (truth[None] ^ flips) * [0, 1, 1, 1]  # (anna, bo, chen, anna again; image; label)
    readers = (("anna", "first"), ("bo", "first"), ("chen", "first"), ("anna", "repeat"))
    annotations = [
        _annotation(login, image, dict(zip(PAPER.label_ids, map(int, row), strict=True)), purpose)
        for (login, purpose), images in zip(readers, flags, strict=True)
        for image, row in enumerate(images)
        if purpose == "first" or image < 30
    ]
    return annotations, flags, {f"g{image}": f"p{image // 3}" for image in range(60)}


def _value(table: object, **where: object) -> float:
    for name, wanted in where.items():
        table = table[table[name] == wanted]
    assert len(table) == 1
    return float(table["value"].iloc[0])


def test_pairs_and_repeats_have_the_kappa_of_scikit_learn(readings: tuple) -> None:
    annotations, flags, patients = readings
    table = study_agreement(annotations, patients, PAPER).table
    for k, label in enumerate(PAPER.label_ids[1:], start=1):
        pair = _value(table, comparison="pair", readers="anna, bo", label=label, score="cohen")
        assert pair == pytest.approx(cohen_kappa_score(flags[0, :, k], flags[1, :, k]))
        again = _value(table, comparison="self", readers="anna", label=label, score="cohen")
        assert again == pytest.approx(cohen_kappa_score(flags[0, :30, k], flags[3, :30, k]))
    exact = _value(table, comparison="all", label=EXACT_SET, score="percent")
    alike = [(flags[a] == flags[b]).all(axis=1).mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert exact == pytest.approx(np.mean(alike))


def test_intervals_resample_patients_and_come_from_the_seed(readings: tuple) -> None:
    annotations, _, patients = readings
    found = study_agreement(annotations, patients, PAPER, seed=3)
    assert (found.resampled, found.n_groups) == ("patients", 20)
    fleiss = found.table[(found.table["score"] == "fleiss") & (found.table["label"] == "cgn")]
    assert (fleiss["low"] < fleiss["value"]).all()
    assert (fleiss["value"] < fleiss["high"]).all()
    again = study_agreement(annotations, patients, PAPER, seed=3)
    assert again.table.equals(found.table)
    other = study_agreement(annotations, patients, PAPER, seed=4)
    assert not other.table["low"].equals(found.table["low"])


def test_intervals_resample_images_if_a_patient_is_unknown(readings: tuple) -> None:
    annotations, _, patients = readings
    found = study_agreement(annotations, {**patients, "g3": None}, PAPER)
    assert (found.resampled, found.n_groups) == ("images", 60)


def test_the_confusion_of_a_label_counts_every_image_both_labelled(readings: tuple) -> None:
    annotations, flags, patients = readings
    confusion = study_agreement(annotations, patients, PAPER).confusion
    row = confusion[(confusion["readers"] == "anna, chen") & (confusion["label"] == "fsg")].iloc[0]
    anna, chen = flags[0, :, 2], flags[2, :, 2]
    assert row["both"] == (anna & chen).sum()
    assert row["first_only"] == (anna & ~chen & 1).sum()
    assert row["second_only"] == (chen & ~anna & 1).sum()
    assert row[["both", "first_only", "second_only", "neither"]].sum() == 60


def test_skips_third_readers_and_unknown_labels_are_no_ratings() -> None:
    annotations = [
        _annotation("anna", 0, {"cgn": 1}),
        _annotation("bo", 0, {"cgn": 1}),
        _annotation("anna", 1, {"cgn": None}),
        _annotation("bo", 1, {"cgn": 1}),
        _annotation("anna", 2, {}, skip_reason="torn"),
        _annotation("bo", 2, {"cgn": 0}),
        _annotation("chen", 0, {"cgn": 0}, "third"),
    ]
    table = study_agreement(annotations, {}, PAPER).table
    pair = table[(table["comparison"] == "pair") & (table["label"] == "cgn")]
    assert set(pair["readers"]) == {"anna, bo"}
    assert set(pair["n_images"]) == {1}
    assert _value(pair, score="percent") == 1.0
    assert pair["low"].isna().all() or pair["n_images"].eq(1).all()


def test_a_study_without_annotations_has_no_agreement() -> None:
    found = study_agreement([], {}, PAPER)
    assert (len(found.table), len(found.confusion), found.n_groups) == (0, 0, 0)
    assert "value" in found.table
