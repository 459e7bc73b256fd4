"""What a model costs: its size and its speed. Numbers only; who measured them saw the model."""

from dataclasses import dataclass

__all__ = ["ModelCost"]


@dataclass(frozen=True, slots=True)
class ModelCost:
    """One trained network on one machine."""

    input_size: int
    """Height and width of its images, px."""
    n_parameters: int
    n_macs: int
    """Multiplications with addition in convolutions and matrix products, for one image."""
    train_images_per_second: float
    """Median over the epochs, loading included."""
    inference_images_per_second: float
    """Best of several, on images in memory."""
    n_bytes: int
    """Of the weights' file."""
    machine: str
    """Processor or GPU, and its threads."""
