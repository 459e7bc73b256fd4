"""Preparation and scanning of a section: everything that is independent of the disease."""

import io
import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from scipy import ndimage

from glomerulab.images import RgbImage
from glomerulab.phantom.primitives import FloatArray
from glomerulab.phantom.stains import Stain, StainMatrix, draw_stain_matrix
from glomerulab.runtime.jit import compiled

__all__ = ["Scanner", "draw_section", "expose", "scanner_park"]

MIN_BLUR_PX = 0.05
TRUNCATE = 2.5
"""Standard deviations after which the blur kernel is cut."""


@dataclass(frozen=True, slots=True)
class Scanner:
    """Conversion of light to grey levels; the defaults are a perfect scanner."""

    name: str = "ideal"
    white: tuple[float, float, float] = (255.0, 255.0, 255.0)
    """Grey level of unstained glass: 105 to 170 is the grey background of old photographs."""
    blur_um: float = 0.0
    """Standard deviation of the point spread, µm."""
    noise: float = 0.0
    """Standard deviation in grey levels at white."""
    gamma: float = 1.0
    """Exponent on transmittance: scales optical density, leaves its direction."""
    shading: float = 0.0
    """Loss of light from the centre to the corners, share."""
    black_border: float = 0.0
    """Share of the area that a black frame covers."""
    jpeg_quality: int | None = None
    """1 to 100; None keeps every grey level."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a value out of range."""
        if not all(0 < level <= 255 for level in self.white):
            raise ValueError(f"white must be three levels in (0, 255], got {self.white}")
        for name in ("blur_um", "noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.gamma <= 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")
        for name in ("shading", "black_border"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must be from 1 to 100, got {self.jpeg_quality}")


def draw_scanner(name: str, rng: np.random.Generator) -> Scanner:
    """Draw a plausible scanner."""
    level = rng.uniform(228.0, 250.0)
    tint = rng.normal(0.0, 2.5, 3)
    red, green, blue = (float(min(level + shift, 255.0)) for shift in tint)
    return Scanner(
        name=name,
        white=(red, green, blue),
        blur_um=float(rng.uniform(0.25, 0.55)),
        noise=float(rng.uniform(1.0, 3.0)),
        gamma=float(rng.uniform(0.92, 1.08)),
        shading=float(rng.uniform(0.0, 0.04)),
        jpeg_quality=int(rng.integers(80, 96)),
    )


def expose(
    light: FloatArray,
    scanner: Scanner,
    rng: np.random.Generator,
    *,
    mpp: float,
) -> RgbImage:
    """Turn transmittance into pixels.

    Parameters
    ----------
    light : ndarray of float32, shape (H, W, 3)
        Transmittance, 0 to 1; from `recompose` with ``white=1``.
    rng : Generator
        Source of the noise.
    mpp : float
        Micrometres per pixel.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
    """
    sigma = scanner.blur_um / mpp
    if sigma > MIN_BLUR_PX:
        light = ndimage.gaussian_filter(light, (sigma, sigma, 0), truncate=TRUNCATE, mode="nearest")
    noise = np.zeros((0, 0, 3), np.float32)
    if scanner.noise > 0:
        noise = rng.standard_normal(light.shape, dtype=np.float32)
    white = np.array(scanner.white, np.float32)
    pixels = _tone(light, noise, white, (scanner.noise, scanner.gamma, scanner.shading))
    if scanner.black_border > 0:
        _frame(pixels, scanner.black_border)
    return pixels if scanner.jpeg_quality is None else _compressed(pixels, scanner.jpeg_quality)


@compiled
def _tone(
    light: FloatArray, noise: FloatArray, white: FloatArray, numbers: tuple[float, float, float]
) -> RgbImage:
    """Apply tone, illumination, shot noise and rounding, in one pass."""
    strength, gamma, shading = numbers
    height, width = light.shape[:2]
    pixels = np.empty((height, width, 3), np.uint8)
    for row in range(height):
        v = 2.0 * (row + 0.5) / height - 1.0
        for column in range(width):
            u = 2.0 * (column + 0.5) / width - 1.0
            lamp = 1.0 - 0.5 * shading * (u * u + v * v)
            for channel in range(3):
                level = light[row, column, channel]
                if gamma != 1.0:
                    level = level**gamma
                level *= white[channel] * lamp
                if strength > 0.0:
                    # Shot noise: its variance follows the light.
                    level += strength * noise[row, column, channel] * math.sqrt(level / 255.0)
                pixels[row, column, channel] = np.uint8(min(max(level + 0.5, 0.0), 255.0))
    return pixels


def _frame(pixels: RgbImage, share: float) -> None:
    """Blacken a frame of a share of the area, in place."""
    height, width = pixels.shape[:2]
    keep = math.sqrt(1.0 - share)
    rows, columns = round(height * (1 - keep) / 2), round(width * (1 - keep) / 2)
    inner = pixels[rows : height - rows, columns : width - columns].copy()
    pixels[:] = 0
    pixels[rows : height - rows, columns : width - columns] = inner


def _compressed(pixels: RgbImage, quality: int) -> RgbImage:
    """Compress pixels as JPEG and decode them."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling=0)
    with Image.open(buffer) as image:
        return np.array(image, dtype=np.uint8)


SCANNERS = 4
"""Number of scanners in a cohort."""

PATIENT_STREAM = 1
"""First number of the spawn keys; distinct from those in `crops` and `slides`."""


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """One stained section of one patient on one scanner."""

    stain: Stain
    stain_matrix: StainMatrix
    scanner: Scanner
    thickness: float = 1.0
    """Factor on both concentrations; 0 is a blank tile."""
    first_strength: float = 1.0
    """Factor on haematoxylin; 0 leaves a single stain."""
    second_strength: float = 1.0
    """Factor on eosin or periodic acid-Schiff; 0 leaves a single stain."""
    nuclei_kept: float = 1.0
    """Share of the nuclei that are painted; 0.05 is the hard case of few nuclei."""
    radius_um: float = 85.0
    """Mean radius of the patient's glomeruli."""
    tubule_scale: float = 1.0

    def __post_init__(self) -> None:
        """Raise `ValueError` for a value out of range."""
        if self.stain not in {"HE", "PAS"}:
            raise ValueError(f"stain must be HE or PAS, got {self.stain!r}")
        if self.stain_matrix.shape != (3, 2):
            raise ValueError(f"stain_matrix must have shape (3, 2), got {self.stain_matrix.shape}")
        for name in ("thickness", "first_strength", "second_strength"):
            if not 0 <= getattr(self, name) <= 10:
                raise ValueError(f"{name} must be from 0 to 10, got {getattr(self, name)}")
        if not 0 <= self.nuclei_kept <= 1:
            raise ValueError(f"nuclei_kept must be from 0 to 1, got {self.nuclei_kept}")
        if not 40 <= self.radius_um <= 150:
            raise ValueError(f"radius_um must be from 40 to 150, got {self.radius_um}")
        if not 0.5 <= self.tubule_scale <= 1.6:
            raise ValueError(f"tubule_scale must be from 0.5 to 1.6, got {self.tubule_scale}")

    def with_white(self, white: tuple[float, float, float]) -> "Section":
        """Return the same section on another background."""
        return replace(self, scanner=replace(self.scanner, white=white))


def scanner_park(seed: int) -> tuple[Scanner, ...]:
    """Return the scanners of the cohort of a seed."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    return tuple(draw_scanner(f"phantom-scanner-{n + 1}", rng) for n in range(SCANNERS))


def draw_section(
    stain: Stain, rng: np.random.Generator, *, scanner: Scanner, radius_um: float | None = None
) -> Section:
    """Draw the preparation of a section, independent of its disease."""
    return Section(
        stain=stain,
        stain_matrix=draw_stain_matrix(stain, rng),
        scanner=scanner,
        thickness=float(rng.uniform(0.75, 1.25)),
        first_strength=float(rng.uniform(0.8, 1.25)),
        second_strength=float(rng.uniform(0.75, 1.25)),
        radius_um=float(rng.uniform(72.0, 98.0)) if radius_um is None else radius_um,
        tubule_scale=float(rng.uniform(0.9, 1.12)),
    )


def cohort_section(patient: int, stain: Stain, seed: int) -> Section:
    """Return the section of one patient in one stain."""
    of_patient = np.random.default_rng(
        np.random.SeedSequence(seed, spawn_key=(PATIENT_STREAM, patient))
    )
    park = scanner_park(seed)
    scanner = park[int(of_patient.integers(len(park)))]
    radius = float(of_patient.uniform(72.0, 98.0))
    of_stain = np.random.default_rng(
        np.random.SeedSequence(
            seed, spawn_key=(PATIENT_STREAM, patient, ("HE", "PAS").index(stain))
        )
    )
    return draw_section(stain, of_stain, scanner=scanner, radius_um=radius)
