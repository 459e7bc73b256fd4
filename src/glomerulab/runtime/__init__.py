"""Files, processes, progress, seals and compiled loops: what every package builds on."""
