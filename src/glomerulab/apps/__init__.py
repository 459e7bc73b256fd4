"""Programs that answer over HTTP: labelling, review, and a served model."""
