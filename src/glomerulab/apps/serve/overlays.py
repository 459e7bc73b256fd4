"""Saliency overlays of served crops; needs torch, so exports have none."""

import io
import threading
from pathlib import Path

import torch
from PIL import Image

from glomerulab.explain.attribution import attribute, overlay_beside, usable_methods
from glomerulab.images import RgbImage
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.runtime.sealing import SealedFolder


class Overlays:
    """Overlays from a second copy of the network that keeps gradients.

    By Grad-CAM, which is one forward and backward pass; where the network has no maps for it, by
    the next method, which takes seconds.
    """

    def __init__(self, run: Path | SealedFolder) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, self._card = load_checkpoint(run)
        self._model = model.eval().to(self._device).to(memory_format=torch.channels_last)
        self.method = usable_methods(self._model, input_size=self._card.input_size)[0]
        self._lock = threading.Lock()

    def draw(self, pixels: RgbImage, picture: RgbImage, label_id: str) -> bytes:
        """Draw a crop and, beside it, the evidence for a label.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (S, S, 3)
            Input of the network.
        picture : ndarray of uint8, shape (H, W, 3)
            The same in its own proportions.

        Returns
        -------
        bytes
            A PNG of 2 W by H pixels.
        """
        card = self._card
        rgb = torch.from_numpy(pixels).to(self._device).float() / 255.0  # (S, S, 3)
        tensor = ((rgb - rgb.new_tensor(card.mean)) / rgb.new_tensor(card.std)).permute(2, 0, 1)
        target = card.taxonomy.label_ids.index(label_id)
        with self._lock:  # the methods register hooks on the network
            saliency = attribute(self._model, tensor, target, self.method).numpy()
        stream = io.BytesIO()
        drawn = Image.fromarray(overlay_beside(picture, saliency))
        drawn.save(stream, format="PNG", compress_level=1)
        return stream.getvalue()
