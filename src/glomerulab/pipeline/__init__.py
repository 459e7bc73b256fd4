"""The steps that the commands and the quickstart call."""
