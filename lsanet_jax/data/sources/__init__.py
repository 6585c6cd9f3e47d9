"""One loader for each kind of data; each returns a `Dataset`."""
