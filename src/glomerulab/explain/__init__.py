"""Explanations: where in an image a model found its answer, tested and not just drawn."""
