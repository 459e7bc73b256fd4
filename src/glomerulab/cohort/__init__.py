"""Cohorts: manifests, importers, splits by patient, and the images they list."""
