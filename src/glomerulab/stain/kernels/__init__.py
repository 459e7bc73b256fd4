"""Compiled loops of the stain solver."""
