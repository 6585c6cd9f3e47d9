"""The folder of one run: its files, its records, its checkpoints, and the trained network in it."""
