"""The only place with SQL: the database of one labelling study."""
