"""Synthetic renal biopsies with known truth. Never to be presented as clinical data."""
