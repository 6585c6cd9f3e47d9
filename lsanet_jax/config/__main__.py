"""Print the documentation's page of all fields: python -m lsanet_jax.config > docs/fields.md."""

from lsanet_jax.config import table

if __name__ == "__main__":
    print(table.as_markdown(), end="")
