"""The web pages of the annotation program."""
