"""Web applications: annotation, review, and a served model."""
