"""What the programs that answer over HTTP share: listening, shielding, files for pages."""
