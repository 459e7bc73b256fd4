"""The database of one labelling study; the only package with SQL."""
