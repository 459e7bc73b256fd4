"""Known failures of stain tools, one test for each, on pixels with known stains."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from glomerulab.errors import StainError
from glomerulab.geometry import Box
from glomerulab.images import read_image
from glomerulab.slides.slide import open_slide
from glomerulab.stain.fitting import FitFailure, StainStatus, fit, try_fit
from glomerulab.stain.normalize import StainNormalizer, normalize, separate, transform
from glomerulab.stain.optical_density import find_tissue, tissue_mask
from glomerulab.stain.reference import PAPER, RECOMMENDED
from tests.support.beer_lambert import HE, PAS, TARGET_HE, Truth, section, worst_angle

HARD_CASES = {
    "few nuclei": {"nuclei": 0.05},
    "weak stain": {"strength": (0.4, 0.4)},
    "grey background 105": {"white": (105.0, 108.0, 103.0)},
    "grey background 170": {"white": (170.0, 165.0, 160.0)},
    "black border": {"border": 0.27},
    "2 % tissue": {"glass": 0.98, "nuclei": 0.01},
    "noise": {"noise": 3.0},
}
UNUSABLE = {
    "blank": np.clip(np.random.default_rng(0).normal(243, 1.5, (224, 224, 3)), 0, 255),
    "white": np.full((224, 224, 3), 255),
    "near-white": np.full((224, 224, 3), 238),
    "black": np.zeros((224, 224, 3)),
    "nearly black": np.random.default_rng(1).integers(0, 7, (224, 224, 3)),
    "constant": np.full((224, 224, 3), (180, 90, 160)),
    "one pixel": np.full((1, 1, 3), 100),
    "tiny": np.random.default_rng(2).integers(60, 200, (3, 2, 3)),
}
STATUSES = {
    "blank": StainStatus.BLANK,
    "white": StainStatus.CONSTANT,
    "near-white": StainStatus.CONSTANT,
    "black": StainStatus.BLACK,
    "nearly black": StainStatus.BLACK,
    "constant": StainStatus.CONSTANT,
    "one pixel": StainStatus.CONSTANT,
    "tiny": StainStatus.TOO_SMALL,
}


@pytest.fixture(scope="module")
def target_truth() -> Truth:
    return section(100, dyes=TARGET_HE, white=(245.0, 245.0, 245.0))


def test_stains_are_within_a_degree_on_average() -> None:
    angles = [
        worst_angle(fit(truth.image, "HE").stain_matrix, truth.stain_matrix)
        for truth in map(section, range(8))
    ]
    assert np.mean(angles) <= 1.0


@pytest.mark.parametrize("case", HARD_CASES)
def test_stains_are_within_three_degrees_on_hard_cases(case: str) -> None:
    for seed in range(3):
        truth = section(seed, **HARD_CASES[case])
        assert worst_angle(fit(truth.image, "HE").stain_matrix, truth.stain_matrix) <= 3.0


def test_grey_background_is_not_tissue() -> None:
    truth = section(1, white=(120.0, 122.0, 118.0), glass=0.5)
    found = fit(truth.image, "HE")
    assert found.n_tissue_px < 0.6 * truth.amounts[..., 0].size
    taken_for_white = try_fit(truth.image, "HE", white=255.0)
    assert isinstance(taken_for_white, FitFailure) or (
        worst_angle(taken_for_white.stain_matrix, truth.stain_matrix)
        > 5 * worst_angle(found.stain_matrix, truth.stain_matrix)
    )


@pytest.mark.parametrize("name", UNUSABLE)
def test_blank_black_and_constant_images_are_returned_unchanged(
    name: str, target_truth: Truth
) -> None:
    image = UNUSABLE[name].astype(np.uint8)
    target = fit(target_truth.image, "HE")
    result = normalize(image, target)
    assert result.status is STATUSES[name]
    assert np.array_equal(result.image, image)
    assert result.reason
    with pytest.raises(StainError, match=STATUSES[name].value):
        normalize(image, target, strict=True)


def test_black_border_does_not_move_the_stains() -> None:
    borderless, bordered = section(2), section(2, border=0.27)
    one, other = fit(borderless.image, "HE"), fit(bordered.image, "HE")
    assert worst_angle(one.stain_matrix, other.stain_matrix) < 0.5


def test_two_percent_tissue_does_not_colour_the_glass(target_truth: Truth) -> None:
    truth = section(3, glass=0.98, nuclei=0.01)
    target = fit(target_truth.image, "HE")
    result = normalize(truth.image, target, strict=True)
    bare = truth.amounts.sum(axis=-1) == 0.0
    assert np.abs(result.image[bare].mean(axis=0) - target.white).max() < 5.0


def test_nuclei_in_one_corner_of_a_large_image_give_its_stains() -> None:
    size, corner = 1000, 250  # nuclei are 2 % of a field of which only a sample is kept
    image = section(1, size=size, nuclei=0.001, strength=(0.3, 1.0)).image
    nuclei = section(2, size=corner, nuclei=0.3)
    image[:corner, :corner] = nuclei.image
    found = fit(image, "HE")
    assert find_tissue(image, np.array(found.white)).pixels is not None
    assert worst_angle(found.stain_matrix, nuclei.stain_matrix) < 1.0
    amounts = separate(image, found)[tissue_mask(image, np.array(found.white))]
    assert found.n_tissue_px == len(amounts)
    assert found.percentiles == pytest.approx(np.percentile(amounts, 99, axis=0), rel=0.03)


def test_weak_stain_is_separated_better_by_less_sparsity() -> None:
    truth = section(4, strength=(0.35, 0.35))
    recommended, paper = (
        worst_angle(fit(truth.image, "HE", parameters=preset).stain_matrix, truth.stain_matrix)
        for preset in (RECOMMENDED, PAPER)
    )
    assert recommended < paper
    assert recommended < 1.5


@pytest.mark.parametrize("strength", [(1.0, 0.0), (0.0, 1.0), (0.0, 0.4)])
@pytest.mark.parametrize("noise", [0.0, 1.5, 3.0])
def test_a_single_stain_is_not_separated_into_two(
    strength: tuple[float, float], noise: float, target_truth: Truth
) -> None:
    truth = section(5, strength=strength, noise=noise)
    result = normalize(truth.image, fit(target_truth.image, "HE"))
    assert result.status in {StainStatus.ONE_STAIN, StainStatus.NOT_TISSUE}
    assert np.array_equal(result.image, truth.image)


@pytest.mark.parametrize(("stain", "dyes"), [("HE", HE), ("PAS", PAS)])
@pytest.mark.parametrize("strength", [(0.3, 1.3), (1.3, 0.3), (1.0, 1.0)])
def test_the_order_of_stains_does_not_depend_on_their_amounts(
    stain: str, dyes, strength: tuple[float, float]
) -> None:
    truth = section(6, dyes=dyes, strength=strength)
    found = fit(truth.image, stain, check_stain=False)
    assert worst_angle(found.stain_matrix, truth.stain_matrix) < 5.0


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "is_eosin"), [("im_89", True), ("im_90", False), ("im_95", False)]
)
def test_silver_beside_haematoxylin_is_not_taken_for_silver_beside_eosin(
    real_data: Path, name: str, is_eosin: bool
) -> None:
    paths = sorted((real_data / "kidney_compartments").glob(f"*/sil/{name}_?.png"))
    assert paths
    for path in paths:
        found = try_fit(read_image(path), "PASM")
        if is_eosin:
            assert not isinstance(found, FitFailure)
        else:  # silver is the second dye there: recolouring would turn it pink
            assert isinstance(found, FitFailure)
            assert found.status is StainStatus.NOT_TISSUE


@pytest.mark.real
@pytest.mark.parametrize(("folder", "stain"), [("he", "HE"), ("pas", "PAS")])
def test_the_order_of_stains_holds_on_real_sections(
    real_data: Path, folder: str, stain: str
) -> None:
    paths = sorted((real_data / "kidney_compartments").glob(f"*/{folder}/*[0-9].png"))
    assert len(paths) >= 25
    for path in paths:
        found = fit(read_image(path), stain, source=path.name, check_stain=False)
        assert found.stain_vectors[0][0] > found.stain_vectors[1][0]
        assert found.stain_vectors[0][1] < found.stain_vectors[1][1]  # green: less haematoxylin


def test_the_callers_array_is_never_changed(target_truth: Truth) -> None:
    truth, target = section(7), fit(target_truth.image, "HE")
    image = truth.image.copy()
    image.setflags(write=False)  # even a read-only image is accepted
    for result in (normalize(image, target).image, transform(image, target, target)):
        assert not np.shares_memory(result, image)
    assert np.array_equal(image, truth.image)


def test_new_colours_are_rounded_not_truncated(target_truth: Truth) -> None:
    truth = section(8, noise=0.0)
    own = fit(truth.image, "HE")
    shift = transform(truth.image, own, own).astype(float) - truth.image
    assert abs(np.mean(shift)) < 0.25  # truncation would darken by half a grey level


class _Sections(Dataset):
    def __init__(self, normalizer: StainNormalizer) -> None:
        self.normalizer = normalizer
        self.images = [section(seed, size=128).image for seed in range(4)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> torch.Tensor:
        return torch.from_numpy(self.normalizer(self.images[place]))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader_give_the_same_numbers(start: str, target_truth: Truth) -> None:
    normalizer = StainNormalizer(fit(target_truth.image, "HE"))
    sections = _Sections(normalizer)
    loader = DataLoader(sections, batch_size=2, num_workers=2, multiprocessing_context=start)
    got = torch.cat(list(loader)).numpy()
    expected = np.stack([normalizer(image) for image in sections.images])
    assert np.array_equal(got, expected)


def test_inference_without_gradients_gives_the_same_numbers(target_truth: Truth) -> None:
    normalizer = StainNormalizer(fit(target_truth.image, "HE"))
    image = section(9).image
    expected = normalizer(image)
    with torch.no_grad():
        assert np.array_equal(normalizer(image), expected)
    with torch.inference_mode():
        assert np.array_equal(normalizer(torch.from_numpy(image).numpy()), expected)


@pytest.mark.real
def test_real_ink_is_named_and_nothing_else_is_called_ink(real_data: Path) -> None:
    with open_slide(real_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        inked = slide.read_region(Box(0, 0, 512, 512))
    refused = try_fit(inked, "HE")
    assert isinstance(refused, FitFailure)
    assert "marker ink" in refused.reason
    stains = {"he": "HE", "pas": "PAS", "sil": "PASM", "tri": "TRI"}
    for path in sorted((real_data / "kidney_compartments").glob("*/*/*[0-9].png")):
        found = try_fit(read_image(path), stains[path.parent.name])
        assert not isinstance(found, FitFailure) or "ink" not in found.reason
