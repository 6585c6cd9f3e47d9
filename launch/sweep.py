"""A door to `lsanet_jax.sweeps.run`: python -m launch.sweep --help."""

from lsanet_jax.sweeps.run import main

if __name__ == "__main__":
    main()
