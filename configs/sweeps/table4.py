"""Table 4: auxiliary classifiers on different layers, ResNet-34 on DermaMNIST.

lsanet sweep --sweep=table4 --workdir=sweeps/table4
24 runs, 8 with each of three seeds; with --scale=28px about 10 minutes each on 2 CPU cores.
"""

from lsanet_jax.sweeps.paper import paper_table, run_of
from lsanet_jax.sweeps.spec import Sweep


def get_sweep(scale):
    """Return the sweep: LSANet on each combination of stages, and the baseline."""
    table = paper_table(4)
    runs = []
    for row in table["rows"]:
        baseline = row["method"] == "baseline"
        nodes = "".join(f"C{tap}" for tap in row["taps"])
        runs.append(
            run_of(
                row,
                name="baseline" if baseline else nodes,
                shown={"Model": f"Baseline (C{row['taps'][-1]})" if baseline else nodes},
                scale=scale,
                baseline=None if baseline else "baseline",
                model__taps=tuple(row["taps"]),
            )
        )
    return Sweep(name="table4", title=table["title"], runs=tuple(runs), scale=scale)
