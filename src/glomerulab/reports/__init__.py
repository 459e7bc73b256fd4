"""Reports: what was found, for people and for other systems. Runs no model."""
