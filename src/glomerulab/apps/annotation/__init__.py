"""Annotation: people label images, blinded and several times, and nothing of it is lost."""
