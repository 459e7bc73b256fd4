"""Inference: predictions of a trained model for new images."""
