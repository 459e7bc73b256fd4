"""Stain normalisation against known truth: sections made by Beer-Lambert, and the phantom's crops.

Run: ``python benchmarks/stain_truth.py``. Prints Markdown tables. Truth is known for
synthetic images only; the real ones under GLOMERULAB_REAL_DATA (default ``../shared/data``) show
whether the phantom mixes its dyes as kidney does.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from beer_lambert import TARGET_HE, section, worst_angle

from glomerulab.images import read_image
from glomerulab.phantom.crops import PhantomCrop, render_crop
from glomerulab.phantom.section import Section, draw_section, expose, scanner_park
from glomerulab.phantom.stains import Stain
from glomerulab.phantom.stains import recompose as phantom_light
from glomerulab.stain.fitting import fit
from glomerulab.stain.normalize import restain, transform
from glomerulab.stain.reference import PRESETS, StainParameters

REAL_DATA = Path(
    os.environ.get("GLOMERULAB_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")
)
CASES = {
    "plain": {},
    "5 % nuclei": {"nuclei": 0.05},
    "weak stain": {"strength": (0.4, 0.4)},
    "grey background 105": {"white": (105.0, 108.0, 103.0)},
    "grey background 170": {"white": (170.0, 165.0, 160.0)},
    "27 % black border": {"border": 0.27},
}


def angles_and_colours() -> None:
    print("\n| synthetic sections | preset | worst-stain angle, mean (max) | colour error | none |")
    print("|---|---|---|---|---|")
    target = section(100, dyes=TARGET_HE, white=(245.0, 245.0, 245.0))
    for name, case in CASES.items():
        for preset, parameters in PRESETS.items():
            reference = fit(target.image, "HE", parameters=parameters)
            angles, errors, untouched = [], [], []
            for truth in (section(seed, **case) for seed in range(8)):
                own = fit(truth.image, "HE", parameters=parameters)
                angles.append(worst_angle(own.stain_matrix, truth.stain_matrix))
                tissue = truth.amounts.sum(axis=-1) > 0.15
                tissue[:, : round(case.get("border", 0.0) * tissue.shape[1])] = False
                ideal = truth.recomposed(
                    TARGET_HE,
                    gains=gains(truth.amounts[tissue], target.amounts),
                    white=(245.0,) * 3,
                )
                moved = transform(truth.image, own, reference)
                errors.append(np.abs(moved - ideal)[tissue].mean())
                untouched.append(np.abs(truth.image - ideal)[tissue].mean())
            print(
                f"| {name} | {preset} | {np.mean(angles):.2f}° ({np.max(angles):.2f}°) | "
                f"{np.mean(errors):.2f} | {np.mean(untouched):.1f} |"
            )


def gains(amounts: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    there = theirs[theirs.sum(axis=-1) > 0.15]
    return np.percentile(there, 99, axis=0) / np.percentile(amounts, 99, axis=0)


def phantom_truth() -> None:
    """The same on phantom crops, whose materials all mix the dyes, as scanned and without noise."""
    print(
        "\n| phantom crops | preset | worst-stain angle, mean (max) | purest 1 % | "
        "first stain from these | colour error (true stains known) | the same without noise | "
        "untouched |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for stain in ("HE", "PAS"):
        target, *noisy = (phantom_crop(stain, seed) for seed in (100, *range(8)))
        clean_target, *clean = (
            phantom_crop(stain, seed, noise=0.0, jpeg_quality=None) for seed in (100, *range(8))
        )
        for preset, parameters in PRESETS.items():
            references = [fit(one.pixels, stain, parameters=parameters) for one, _ in noisy]
            angles = [
                worst_angle(own.stain_matrix, one.stain_matrix)
                for own, (one, _) in zip(references, noisy, strict=True)
            ]
            purest = [purest_stains(one) for one, _ in noisy]
            limits = [
                worst_angle(p, one.stain_matrix) for p, (one, _) in zip(purest, noisy, strict=True)
            ]
            from_purest = [
                worst_angle(own.stain_matrix[:, :1], p[:, :1])
                for own, p in zip(references, purest, strict=True)
            ]
            errors = [phantom_error(one, target, parameters) for one in noisy]
            free = [phantom_error(one, clean_target, parameters) for one in clean]
            moved, known, untouched = np.mean(errors, axis=0)
            clean_moved, clean_known, _ = np.mean(free, axis=0)
            print(
                f"| {stain} | {preset} | {np.mean(angles):.2f}° ({np.max(angles):.2f}°) | "
                f"{np.mean(limits):.2f}° | {np.mean(from_purest):.2f}° | "
                f"{moved:.2f} ({known:.2f}) | {clean_moved:.2f} ({clean_known:.2f}) | "
                f"{untouched:.1f} |"
            )


def phantom_crop(stain: Stain, seed: int, **scanner: object) -> tuple[PhantomCrop, Section]:
    """A crop of 512 px, and how its section was prepared."""
    park = scanner_park(1)
    section_drawn = draw_section(
        stain, np.random.default_rng(seed), scanner=replace(park[seed % len(park)], **scanner)
    )
    kind = ("normal", "mspgn", "fsg", "cgn")[seed % 4]
    return render_crop(kind, section_drawn, seed), section_drawn


def purest_stains(crop: PhantomCrop) -> np.ndarray:
    """Colours of the purest 1 % of the pixels: the best estimate of the dyes from colours."""
    amounts = crop.concentrations.reshape(2, -1)
    total = amounts.sum(axis=0)
    share = amounts[0, total > 0.15] / total[total > 0.15]
    low, high = np.quantile(share, [0.01, 0.99])
    found = crop.stain_matrix @ np.array([[high, low], [1.0 - high, 1.0 - low]])
    return np.asarray(found / np.linalg.norm(found, axis=0))


def phantom_error(
    drawn: tuple[PhantomCrop, Section],
    onto: tuple[PhantomCrop, Section],
    parameters: StainParameters,
) -> tuple[float, float, float]:
    """Colour error over tissue after, after with the true stains known, and before.

    Against the true amounts in the target's dyes.
    """
    (crop, prepared), (target, shown) = drawn, onto
    own = fit(crop.pixels, crop.stain, parameters=parameters)
    moved = transform(crop.pixels, own, fit(target.pixels, crop.stain, parameters=parameters))
    amounts = np.moveaxis(crop.concentrations, 0, -1)
    tissue = amounts.sum(axis=-1) > 0.15
    factors = gains(amounts[tissue], np.moveaxis(target.concentrations, 0, -1))
    light = phantom_light(
        crop.concentrations * factors[:, np.newaxis, np.newaxis].astype(np.float32),
        target.stain_matrix,
        white=1.0,
    )
    # What is not the stains' stays: focus and lamp are the crop's, white and tone the target's.
    scanner = replace(
        prepared.scanner,
        white=target.white,
        gamma=shown.scanner.gamma,
        noise=0.0,
        jpeg_quality=None,
    )
    ideal = expose(light, scanner, np.random.default_rng(0), mpp=crop.mpp).astype(np.float64)
    known = restain(
        crop.pixels,
        replace(own, stain_vectors=tuple(map(tuple, crop.stain_matrix.T)), white=crop.white),
        gains=factors * (shown.scanner.gamma / prepared.scanner.gamma),
        stains=target.stain_matrix.T.copy(),
        white=np.array(target.white),
    )
    ours, left, before = (
        float(np.abs(image - ideal)[tissue].mean()) for image in (moved, known, crop.pixels)
    )
    return ours, left, before


def separations() -> None:
    """Angles between the fitted stains on real kidney and on the phantom."""
    print("\n| angle between the two fitted stains | images | median | 10th to 90th percentile |")
    print("|---|---|---|---|")
    for stain in ("HE", "PAS"):
        real = sorted((REAL_DATA / "kidney_compartments").glob(f"*/{stain.lower()}/*[0-9].png"))
        crops = [phantom_crop(stain, seed)[0] for seed in range(16)]
        for name, images in (
            ("real kidney", [read_image(path) for path in real]),
            ("phantom", [crop.pixels for crop in crops]),
        ):
            if images:
                spread_degrees(f"{stain}, {name}", [fit(i, stain).stain_matrix for i in images])
        spread_degrees(f"{stain}, phantom's dyes themselves", [one.stain_matrix for one in crops])


def spread_degrees(name: str, matrices: list[np.ndarray]) -> None:
    angles = [worst_angle(matrix[:, :1], matrix[:, 1:]) for matrix in matrices]
    low, middle, high = np.quantile(angles, [0.1, 0.5, 0.9])
    print(f"| {name} | {len(angles)} | {middle:.1f}° | {low:.1f} to {high:.1f}° |")


if __name__ == "__main__":
    angles_and_colours()
    phantom_truth()
    separations()
