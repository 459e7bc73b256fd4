"""One crop with a glomerulus in its middle, and everything that is true of it."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.geometry import Point
from glomerulab.images import RgbImage
from glomerulab.phantom.anatomy import Glomerulus, draw_glomerulus
from glomerulab.phantom.cortex import draw_cortex
from glomerulab.phantom.lesions import Lesions, draw_lesions
from glomerulab.phantom.materials import Stain
from glomerulab.phantom.paint_glomerulus import CGN_BIT, FSG_BIT, MSPGN_BIT
from glomerulab.phantom.scanner import expose
from glomerulab.phantom.scene import Painting, Scene, paint
from glomerulab.phantom.section import Section
from glomerulab.phantom.stains import StainMatrix, recompose

__all__ = ["LESION_BITS", "PhantomCrop", "lesion_masks", "render_crop"]

LESION_BITS = {"mspgn": MSPGN_BIT, "fsg": FSG_BIT, "cgn": CGN_BIT}
MARGIN_UM = 45.0
"""Tissue drawn beyond the view, so that its edge shows whole tubules."""


@dataclass(frozen=True, slots=True, eq=False)
class PhantomCrop:
    """A synthetic crop. Not a clinical image, and never to be shown as one."""

    pixels: RgbImage
    labels: tuple[str, ...]
    """Ids of the taxonomy ``paper``."""
    lesions: Lesions
    stain: Stain
    mpp: float
    stain_matrix: StainMatrix
    """True stain matrix, (3, 2), unit columns."""
    white: tuple[float, float, float]
    concentrations: npt.NDArray[np.float32]
    """True concentrations before blur, tone and noise, (2, H, W)."""
    structure: npt.NDArray[np.uint8]
    """`Material` of every pixel, (H, W)."""
    masks: dict[str, npt.NDArray[np.bool_]]
    """Where each lesion is, (H, W) per label; labels without a place are not in it."""
    outline: tuple[Point, ...]
    """Bowman's capsule, (x, y) in pixels."""
    crescent_share: float
    """Share of Bowman's circumference under the crescent, 0 to 1."""
    mesangial_cells: tuple[int, ...]
    """Mesangial nuclei of each mesangial area."""

    def ideal(
        self, stain_matrix: StainMatrix | None = None, *, white: npt.ArrayLike | None = None
    ) -> RgbImage:
        """Recompose without blur, noise or compression, with this or another stain matrix.

        Parameters
        ----------
        stain_matrix : ndarray of float, shape (3, 2), optional
            By default the crop's own.
        white : array_like, optional
            By default the crop's own.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)
        """
        matrix = self.stain_matrix if stain_matrix is None else stain_matrix
        light = recompose(self.concentrations, matrix, white=self.white if white is None else white)
        return np.rint(light).clip(0, 255).astype(np.uint8)


def render_crop(
    kind: str | Lesions,
    section: Section,
    seed: int | np.random.SeedSequence,
    *,
    size: int = 512,
    mpp: float = 0.5,
) -> PhantomCrop:
    """Render one crop.

    Parameters
    ----------
    kind : str or Lesions
        One of `glomerulab.phantom.lesions.KINDS` (severity is drawn), or the lesions themselves.
    section : Section
        Stain, scanner and everything else that is not disease.
    seed : int or SeedSequence
        Same seed, same bytes.
    size : int, default 512
        Side of the square in pixels, at least 32.
    mpp : float, default 0.5
        Micrometres per pixel.

    Returns
    -------
    PhantomCrop

    Raises
    ------
    ValueError
        If the size or mpp is out of range, or the kind unknown.
    """
    if size < 32:
        raise ValueError(f"size must be at least 32 pixels, got {size}")
    if not (math.isfinite(mpp) and 0.05 <= mpp <= 8.0):
        raise ValueError(f"mpp must be from 0.05 to 8, got {mpp}")
    rng = np.random.default_rng(seed)
    lesions = draw_lesions(kind, rng) if isinstance(kind, str) else kind
    side = size * mpp
    scene = _crop_scene(lesions, section, rng, side)
    left, upper = -side / 2, -side / 2
    view = paint(scene, section, left_um=left, upper_um=upper, shape=(size, size), mpp=mpp)
    light = recompose(view.concentrations, section.stain_matrix, white=1.0)
    glomerulus = scene.glomeruli[0]
    return PhantomCrop(
        pixels=expose(light, section.scanner, rng, mpp=mpp),
        labels=lesions.labels,
        lesions=lesions,
        stain=section.stain,
        mpp=mpp,
        stain_matrix=section.stain_matrix,
        white=section.scanner.white,
        concentrations=view.concentrations,
        structure=view.structure,
        masks=lesion_masks(view, lesions),
        outline=tuple(((x - left) / mpp, (y - upper) / mpp) for x, y in glomerulus.outline()),
        crescent_share=glomerulus.crescent_share,
        mesangial_cells=glomerulus.mesangial_cells,
    )


def lesion_masks(view: Painting, lesions: Lesions) -> dict[str, npt.NDArray[np.bool_]]:
    """Return one bool (H, W) mask per lesion that is present."""
    return {
        label: (view.lesion_bits & LESION_BITS[label]) > 0
        for label in lesions.labels
        if label in LESION_BITS
    }


def _crop_scene(
    lesions: Lesions, section: Section, rng: np.random.Generator, side_um: float
) -> Scene:
    """Place the glomerulus near the middle and fill up around it; sometimes the core ends."""
    radius = section.radius_um * float(rng.uniform(0.9, 1.1))
    shift = rng.uniform(-0.04, 0.04, 2) * side_um
    glomerulus: Glomerulus = draw_glomerulus(
        lesions, rng, place_um=(float(shift[0]), float(shift[1])), radius_um=radius
    )
    reach = side_um / 2 + MARGIN_UM
    holes = np.array([[glomerulus.x_um, glomerulus.y_um, glomerulus.capsule_um.mean()]])
    cortex = draw_cortex(
        (-reach, -reach, reach, reach),
        holes,
        rng,
        poles=[] if glomerulus.pole is None else [glomerulus.pole],
        tubule_scale=section.tubule_scale,
    )
    half_width = 3 * reach
    edge = rng.uniform(1.15, 1.5) * radius if rng.random() < 0.2 else 4 * reach
    turn = rng.uniform(0, 2 * math.pi)
    away = half_width - edge
    x, y = away * math.cos(turn), away * math.sin(turn)
    along_x, along_y = -math.sin(turn) * 20 * reach, math.cos(turn) * 20 * reach
    cores = np.array(
        [[x - along_x, y - along_y, x + along_x, y + along_y, half_width]], dtype=np.float32
    )
    return Scene((glomerulus,), cortex, cores)
