"""Matplotlib figures of evaluations."""
