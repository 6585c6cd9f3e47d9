"""Two formulations of the same layers, one for CPU and one for GPU: the only place that chooses.

XLA's CPU and GPU backends are fast at different programs of the same mathematics. The backend that
JAX runs on decides; `LSANET_FORMULATION=cpu` or `gpu` in the environment overrides it, so that the
GPU's programs can be tested on a CPU, or compiled without a GPU. In float64 both give the same
values.
"""

import functools
import os

import jax
from jax.sharding import AbstractMesh, Mesh

from lsanet_jax.errors import ConfigError

VARIABLE = "LSANET_FORMULATION"


def is_for_cpu() -> bool:
    """Whether to trace what is fast on CPU.

    Raises:
      ConfigError: the environment asks for an unknown formulation.
    """
    forced = os.environ.get(VARIABLE, "")
    if forced not in ("", "cpu", "gpu"):
        raise ConfigError(f"{VARIABLE} = {forced!r} in the environment: expected cpu, gpu or unset")
    return (forced or jax.default_backend()) == "cpu"


def jit(function, mesh: Mesh, **options):
    """`jax.jit` for a function with layers in it, whose batches are split over a mesh.

    The layers see the mesh while they are traced (`data_axis`), and XLA is told how to compile
    them.
    """

    @functools.wraps(function)
    def traced(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return jax.jit(traced, compiler_options=compiler_options(), **options)


def mesh_over(batch: int) -> AbstractMesh | None:
    """The mesh that a batch is split over evenly, if there is one with several devices."""
    mesh = jax.sharding.get_abstract_mesh()
    devices = mesh.shape.get("data", 1)
    return mesh if devices > 1 and batch % devices == 0 else None


def compiler_options() -> dict[str, str]:
    """Options for the `jax.jit` of a step with convolutions in it; none but on CPU.

    XLA hands its CPU convolutions to YNNPACK, which runs those with up to 64 output channels, or
    fewer than about 80 input channels, in a single thread. Left to Eigen they use all. Products
    of matrices stay with YNNPACK.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
    return options if is_for_cpu() and _compiler_knows(tuple(options.items())) else {}


@functools.cache
def _compiler_knows(options: tuple[tuple[str, str], ...]) -> bool:
    """Whether this XLA takes the options: they are experimental, another version may not."""
    try:
        jax.jit(lambda x: x, compiler_options=dict(options)).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
