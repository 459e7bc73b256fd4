"""Augmentation: more training images, each with its parent."""
