"""Out-of-distribution detection: how far an image lies from the training images."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from glomerulab.errors import CheckpointError

MIN_TRAINING = 10
MIN_SCALE = 1e-6

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MahalanobisDetector:
    """Mahalanobis distance of features to the nearest class, with one covariance for all classes.

    Notes
    -----
    Lee et al. 2018, on the features of every stage.
    """

    class_means: Matrix
    """Shape (C, D): mean features of the training images with the same set of labels."""
    whitening: Matrix
    """Shape (D, D): L of the precision matrix L L'."""

    @classmethod
    def fit(
        cls, features: Matrix, labels: npt.NDArray[np.float64], *, where: str
    ) -> "MahalanobisDetector":
        """Fit a mean per set of labels, and one shrunk covariance (Ledoit-Wolf) for all.

        Parameters
        ----------
        features : ndarray of float, shape (n, D)
            Of the training images.
        labels : ndarray of float, shape (n, K)
        where : str
            The run, for the error.

        Raises
        ------
        CheckpointError
            If there are too few images.
        """
        if len(features) < MIN_TRAINING:
            raise CheckpointError(
                f"the run has {len(features)} training images, too few to fit the detection of "
                f"images unlike them; {MIN_TRAINING} are needed",
                where=where,
            )
        from sklearn.covariance import LedoitWolf  # takes a while, and only training fits

        _, classes = np.unique(np.nan_to_num(labels, nan=-1.0), axis=0, return_inverse=True)
        classes = classes.reshape(-1)
        means = np.stack(
            [features[classes == one].mean(axis=0) for one in range(classes.max() + 1)]
        )
        deviations = (features - means[classes]).astype(np.float64)
        # Standardise each feature: otherwise shrinkage would drown the stages with small values.
        scale = deviations.std(axis=0) + MIN_SCALE
        covariance = LedoitWolf(assume_centered=True).fit(deviations / scale).covariance_
        lower = np.linalg.cholesky(covariance)
        whitening = solve_triangular(lower, np.eye(len(lower)), lower=True).T / scale[:, None]
        return cls(means.astype(np.float32), np.ascontiguousarray(whitening, dtype=np.float32))

    @property
    def n_features(self) -> int:
        """Number of features, D."""
        return int(self.class_means.shape[1])

    def distances(self, features: Matrix) -> npt.NDArray[np.float64]:
        """Return the distance of each image to the nearest class mean.

        Parameters
        ----------
        features : ndarray of float, shape (B, D)

        Returns
        -------
        ndarray of float64, shape (B,)
        """
        # Single precision, or every call would copy the whitening: 60 MB for 3,840 features.
        # Centred on the class means, so that little precision is lost where features are large.
        rows = (features - self._centre) @ self.whitening  # (B, D)
        differences = (rows[:, None] - self._whitened_means[None]).astype(np.float64)  # (B, C, D)
        distances: npt.NDArray[np.float64] = np.linalg.norm(differences, axis=2).min(axis=1)
        return distances

    @cached_property
    def _centre(self) -> Matrix:
        centre: Matrix = self.class_means.mean(axis=0)  # (D,)
        return centre

    @cached_property
    def _whitened_means(self) -> Matrix:
        centred: Matrix = self.class_means - self._centre
        whitened: Matrix = centred @ self.whitening  # (C, D)
        return whitened
