"""Evaluation: scores with intervals and figures, from the predictions table only."""
