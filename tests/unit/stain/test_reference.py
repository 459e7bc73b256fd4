import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glomerulab.errors import StainError
from glomerulab.stain.fitting import fit
from glomerulab.stain.reference import (
    MIN_SEPARATION_DEGREES,
    PAPER,
    PRESETS,
    RECOMMENDED,
    STAIN_PRIORS,
    StainParameters,
    StainReference,
    aggregate,
    read_reference,
    stain_prior,
    write_reference,
)
from tests.support.beer_lambert import HE, PAS, section, worst_angle


def test_the_presets_are_what_their_names_say() -> None:
    assert PRESETS == {"recommended": RECOMMENDED, "paper": PAPER}
    assert (RECOMMENDED.sparsity, RECOMMENDED.coding_sparsity) == (0.02, 0.0)
    assert (PAPER.sparsity, PAPER.coding_sparsity) == (0.1, 0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "magic"),
        ("sparsity", -0.1),
        ("coding_sparsity", float("nan")),
        ("percentile", 20.0),
        ("glass_lightness", 0.0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        StainParameters(**{name: value})


@pytest.mark.parametrize("stain", ["HE", "PAS", "PASM", "TRI", "H-DAB"])
def test_every_stain_lists_the_dye_of_higher_red_first(stain: str) -> None:
    matrix = stain_prior(stain).stain_matrix
    assert matrix.shape == (3, 2)
    assert np.linalg.norm(matrix, axis=0) == pytest.approx([1.0, 1.0])
    assert matrix[0, 0] > matrix[0, 1]


@pytest.mark.parametrize("prior", STAIN_PRIORS.values(), ids=lambda prior: prior.stain)
def test_dyes_of_a_stain_are_farther_apart_than_the_gate(prior) -> None:
    cosine = prior.stain_matrix[:, 0] @ prior.stain_matrix[:, 1]
    assert np.degrees(np.arccos(cosine)) > 1.5 * MIN_SEPARATION_DEGREES


def test_an_unknown_stain_names_the_known_ones() -> None:
    with pytest.raises(StainError, match=r"IHC.*HE, PAS, PASM, TRI"):
        stain_prior("IHC")


def test_changing_a_prior_changes_a_copy() -> None:
    matrix = stain_prior("HE").stain_matrix
    kept = matrix.copy()
    matrix[:] = 0.0
    assert np.array_equal(stain_prior("HE").stain_matrix, kept)


REFERENCE = fit(section(1, size=96).image, "HE", source="中.png")


@pytest.mark.parametrize(
    "reference",
    [
        REFERENCE,
        fit(section(2, size=96).image, "HE", parameters=PAPER),
        fit(section(3, size=96).image, "HE", parameters=StainParameters(method="reinhard")),
    ],
)
def test_json_reads_back_equal(reference: StainReference, tmp_path: Path) -> None:
    write_reference(reference, tmp_path / "r.json")
    assert read_reference(tmp_path / "r.json") == reference


def test_a_reference_is_immutable() -> None:
    with pytest.raises(AttributeError):
        REFERENCE.stain = "PAS"


def test_the_matrix_has_a_column_per_dye() -> None:
    assert REFERENCE.stain_matrix.shape == (3, 2)
    assert REFERENCE.stain_matrix[:, 0].tolist() == list(REFERENCE.stain_vectors[0])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stain": "XX"}, "unknown stain"),
        ({"stain_vectors": ((1.0, 1.0, 0.0), (0.0, 1.0, 0.0))}, "unit norm"),
        ({"stain_vectors": ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))}, ">= 0"),
        ({"percentiles": (0.0, 1.0)}, "percentiles"),
        ({"percentiles": (float("inf"), 1.0)}, "percentiles"),
        ({"white": (0.0, 255.0, 255.0)}, "white"),
    ],
)
def test_impossible_numbers_are_refused(change: dict, named: str) -> None:
    with pytest.raises(StainError, match=named):
        replace(REFERENCE, **change)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "JSON"),
        ("[]", "glomerulab-stain-reference-1"),
        ('{"format": "other"}', "glomerulab-stain-reference-1"),
        ('{"format": "glomerulab-stain-reference-1"}', "stain reference"),
    ],
)
def test_a_file_that_is_not_a_reference_is_named(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StainError, match=named) as caught:
        read_reference(path)
    assert caught.value.where == str(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StainError, match="no such stain reference"):
        read_reference(tmp_path / "none.json")


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_reference(REFERENCE, path)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "evil": 1}), encoding="utf-8")
    with pytest.raises(StainError, match="stain reference"):
        read_reference(path)


def test_several_images_merge_into_one_reference() -> None:
    parts = [fit(section(seed, size=128).image, "HE") for seed in range(4)]
    merged = aggregate(parts, source="all")
    assert worst_angle(merged.stain_matrix, section(0, size=32).stain_matrix) < 1.0
    assert merged.n_sources == 4
    assert merged.n_tissue_px == sum(part.n_tissue_px for part in parts)
    assert min(p.percentiles[0] for p in parts) <= merged.percentiles[0]
    assert merged.percentiles[0] <= max(p.percentiles[0] for p in parts)


def test_merging_one_reference_keeps_its_stains() -> None:
    merged = aggregate([REFERENCE])
    assert np.allclose(merged.stain_matrix, REFERENCE.stain_matrix)
    assert merged.white == REFERENCE.white


def test_merging_needs_references_of_one_kind() -> None:
    with pytest.raises(StainError, match="no stain references"):
        aggregate([])
    other = fit(section(1, size=96, dyes=PAS).image, "PAS")
    with pytest.raises(StainError, match="differ in stain"):
        aggregate([REFERENCE, other])
    paper = fit(section(1, size=96, dyes=HE).image, "HE", parameters=PAPER)
    with pytest.raises(StainError, match="differ in parameters"):
        aggregate([REFERENCE, paper])
