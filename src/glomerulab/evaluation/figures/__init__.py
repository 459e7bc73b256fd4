"""Figures: one file per family; each function takes numbers and gives a matplotlib figure."""
