"""Stain normalisation: optical density, separation, references, and their checks.

Pure arrays.
"""
