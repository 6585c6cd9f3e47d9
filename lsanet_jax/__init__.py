"""LSANet: deeply supervised training of CNN classifiers from few labels, in JAX and Flax."""

__version__ = "0.1.0"
