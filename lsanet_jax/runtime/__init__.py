"""The process and its machine: command lines, files, locks, cores, signals, determinism."""
