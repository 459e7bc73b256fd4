"""Training: a manifest and a config become a run folder."""
