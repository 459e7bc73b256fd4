"""Inference: what a trained model says of images it has not seen."""
