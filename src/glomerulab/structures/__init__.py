"""The structures of a kidney section: what they are, where they lie, how large they are."""
