"""What a scanner makes of a section: light, focus, tone, noise, compression, faults."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from glomerulab.images import RgbImage

__all__ = ["Scanner", "draw_scanner", "expose"]

TRUNCATE = 2.5
"""Standard deviations after which the blur kernel is cut."""


@dataclass(frozen=True, slots=True)
class Scanner:
    """How light becomes grey levels; the defaults are a perfect scanner."""

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
        """Refuse impossible settings."""  # noqa: DOC501
        if len(self.white) != 3 or not all(0 < level <= 255 for level in self.white):
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
    """Draw a plausible scanner.

    Parameters
    ----------
    name : str
    rng : Generator

    Returns
    -------
    Scanner
    """
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
    light: npt.NDArray[np.float32],
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
    scanner : Scanner
    rng : Generator
        Of the noise.
    mpp : float
        Micrometres per pixel.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
    """
    sigma = scanner.blur_um / mpp
    if sigma > 0.05:
        light = ndimage.gaussian_filter(light, (sigma, sigma, 0), truncate=TRUNCATE, mode="nearest")
    if scanner.gamma != 1.0:
        light = np.power(light, np.float32(scanner.gamma))
    levels = light * np.asarray(scanner.white, dtype=np.float32)
    if scanner.shading > 0:
        levels *= _shading(levels.shape[:2], scanner.shading)[..., np.newaxis]
    if scanner.noise > 0:
        # Shot noise: its variance follows the light.
        noise = rng.standard_normal(levels.shape, dtype=np.float32) * np.float32(scanner.noise)
        levels += noise * np.sqrt(np.clip(levels, 0, None) / np.float32(255.0))
    if scanner.black_border > 0:
        _frame(levels, scanner.black_border)
    pixels = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    return pixels if scanner.jpeg_quality is None else _compressed(pixels, scanner.jpeg_quality)


def _shading(shape: tuple[int, int], strength: float) -> npt.NDArray[np.float32]:
    """Return the illumination, 1 in the centre and 1 - strength in the corners."""
    rows = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, np.newaxis]
    columns = np.linspace(-1, 1, shape[1], dtype=np.float32)[np.newaxis]
    return np.asarray(1 - np.float32(strength / 2) * (rows**2 + columns**2), dtype=np.float32)


def _frame(levels: npt.NDArray[np.float32], share: float) -> None:
    """Blacken a frame of a share of the area, in place."""
    height, width = levels.shape[:2]
    keep = np.sqrt(1.0 - share)
    rows, columns = round(height * (1 - keep) / 2), round(width * (1 - keep) / 2)
    inner = levels[rows : height - rows, columns : width - columns].copy()
    levels[:] = 0
    levels[rows : height - rows, columns : width - columns] = inner


def _compressed(pixels: RgbImage, quality: int) -> RgbImage:
    """Send pixels through JPEG and back."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling=0)
    with Image.open(buffer) as image:
        return np.array(image, dtype=np.uint8)
