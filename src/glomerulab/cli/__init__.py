"""The command line: one file per command, each only parsing, calling and telling."""
