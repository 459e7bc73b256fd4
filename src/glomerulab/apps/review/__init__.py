"""Correct calls in the browser; every count is updated at once."""
