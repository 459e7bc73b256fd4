"""Explanations: saliency maps of a prediction, and measures of how faithful they are."""
