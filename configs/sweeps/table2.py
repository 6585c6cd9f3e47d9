"""Table 2: implementations of layer selective attention, ResNet-34 on DermaMNIST.

lsanet sweep --sweep=table2 --workdir=sweeps/table2
24 runs, 8 with each of three seeds; with --scale=28px about 10 minutes each on 2 CPU cores.
"""

from lsanet_jax.sweeps.paper import paper_table, run_of
from lsanet_jax.sweeps.spec import Sweep

# By the kind in paper.json: what the table prints, and the field of its option.
KINDS = {
    "fc": ("Two FC Layer", "reduction ratio", "reduction"),
    "conv": ("1D Convolution", "kernel size", "kernel_size"),
    "gated": ("Gated Attention", None, None),
    "self": ("Self Attention", None, None),
}


def get_sweep(scale):
    """Return the sweep: kinds of attention and their options."""
    table = paper_table(2)
    return Sweep(
        name="table2",
        title=table["title"],
        runs=tuple(_run(row, scale) for row in table["rows"]),
        scale=scale,
    )


def _run(row, scale):
    kind, _, option = row["lsa"].partition(" ")  # such as "fc r=8", or "self"
    attention, operation, field = KINDS[kind]
    shown = {"Attention Type": attention, "Operation": "-"}
    overrides = {"model__lsa__kind": kind}
    if option:
        value = int(option.partition("=")[2])
        shown["Operation"] = f"{operation} = {value}"
        overrides[f"model__lsa__{field}"] = value
    name = row["lsa"].replace(" ", "-").replace("=", "")
    return run_of(row, name=name, shown=shown, scale=scale, **overrides)
