"""Which images a model takes for alike: its features brought to two dimensions by t-SNE."""

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

__all__ = ["MAX_IMAGES", "MIN_IMAGES", "embed"]

MIN_IMAGES = 10
"""With fewer the picture would be chance."""
MAX_IMAGES = 3000
"""More take minutes, and their points hide each other."""

MAX_DIMENSIONS = 50
PERPLEXITY = 30.0


def embed(features: npt.NDArray[np.floating], *, seed: int = 0) -> npt.NDArray[np.float64]:
    """Place images on a plane so that those with like features stand together.

    Parameters
    ----------
    features : ndarray of float, shape (n, D)
        At least `MIN_IMAGES` rows.
    seed : int, default 0
        Same seed, same places.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        Only neighbourhoods mean something: neither axes, nor distances between groups.

    Raises
    ------
    ValueError
        If there are too few images, or a feature is not finite.

    Notes
    -----
    van der Maaten & Hinton 2008, after a reduction to 50 principal components as there.
    """
    if len(features) < MIN_IMAGES:
        raise ValueError(f"at least {MIN_IMAGES} images are needed, got {len(features)}")
    values = np.asarray(features, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("features must be finite")
    n_components = min(MAX_DIMENSIONS, *values.shape)
    reduced = PCA(n_components, random_state=seed).fit_transform(values)
    perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
    init = "pca" if n_components >= 2 else "random"
    tsne = TSNE(perplexity=perplexity, init=init, random_state=seed)
    return np.asarray(tsne.fit_transform(reduced), dtype=np.float64)
