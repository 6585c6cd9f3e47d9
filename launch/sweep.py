"""A door to `lsanet sweep`: python -m launch.sweep --help."""

from lsanet_jax.sweeps.run import main

if __name__ == "__main__":
    main()
