"""Weights carried from a pretrained network into another."""
