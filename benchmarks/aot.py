"""A training step on a GPU, compiled without one: python -m benchmarks.aot resnet18 resnet50.

XLA compiles for an NVIDIA card from its description alone. For each backbone and number of cards
this prints a row: memory of a card, FLOP of convolutions and matrix products, bytes between kernels
and memory, kernels, all-reduces with what they reduce, and the floor of the step: the sum over its
kernels of max(FLOP / peak, bytes / bandwidth). The real step takes longer: no kernel reaches its
peak, and launches, cuDNN's workspaces and the network between the cards are left out.

It needs the packages of requirements.txt, with CUDA, but neither card nor driver; jax 0.10. A
program takes half a minute to a few minutes to compile on two cores.
"""

import argparse
import collections
import json
import math
import os
import re
import types
from typing import NamedTuple


class Card(NamedTuple):
    """A card as XLA wants it described, and what its kernels can reach."""

    description: str  # fields of XLA's GpuDeviceInfoProto
    tf32: float  # FLOP/s of dense products of float32, rounded to TF32
    bf16: float
    bandwidth: float  # bytes/s


CARDS = {
    "rtx3090": Card(
        "core_count: 82 clock_rate_ghz: 1.695 memory_bandwidth: 936000000000 "
        "l2_cache_size: 6291456 device_memory_size: 25438126080 threads_per_core_limit: 1536 "
        "shared_memory_per_core: 102400 shared_memory_per_block_optin: 101376 "
        "cuda_compute_capability { major: 8 minor: 6 }",
        tf32=35.6e12,
        bf16=71e12,
        bandwidth=936e9,
    ),
    "h100": Card(
        "core_count: 132 clock_rate_ghz: 1.98 memory_bandwidth: 3352000000000 "
        "l2_cache_size: 52428800 device_memory_size: 84942979072 threads_per_core_limit: 2048 "
        "shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448 "
        "cuda_compute_capability { major: 9 }",
        tf32=495e12,
        bf16=989e12,
        bandwidth=3352e9,
    ),
}
ALL_CARDS = (
    "threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 "
    "fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 "
    "block_dim_limit_z: 65535 registers_per_core_limit: 65536 registers_per_block_limit: 65536 "
    "thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64"
)
# No card to time kernels on; and Triton finds no tiles for some products on the RTX 3090.
FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"

WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


class Op(NamedTuple):
    """An instruction of a compiled program."""

    name: str
    shapes: list[tuple[str, tuple[int, ...]]]  # (type, dimensions) of each result
    kind: str
    operands: list[str]  # names; of a parameter, its number
    rest: str  # attributes, as text

    @property
    def bytes(self) -> int:
        return sum(WIDTHS.get(dtype, 4) * math.prod(dims) for dtype, dims in self.shapes)

    def attribute(self, pattern: str) -> str:
        found = re.search(pattern, self.rest)
        return found.group(1) if found else ""


def read_program(text: str) -> tuple[dict[str, dict[str, Op]], str]:
    """The computations of a program in XLA's text form, and the name of the first to run."""
    computations, entry, current = {}, "", {}
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            current = computations[head.group(2)] = {}
            entry = head.group(2) if head.group(1) else entry
        elif found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$", line):
            name, result, kind, rest = found.groups()
            shapes = [
                (dtype, tuple(int(d) for d in dims.split(",") if d))
                for dtype, dims in re.findall(r"\b([a-z]\w*)\[([\d,]*)\]", result)
            ]
            arguments, _, rest = rest.partition(")")
            operands = re.findall(r"%([\w.\-]+)", arguments) or [arguments]
            current[name] = Op(name, shapes, kind, operands, rest)
    return computations, entry


class Totals(NamedTuple):
    """What the kernels of a step add up to."""

    flop: float
    bytes: float
    kernels: int
    seconds: float
    collectives: collections.Counter
    reduced: int  # bytes
    forbidden: list[str]  # scatters, sorts and the like


def add_up(text: str, card: Card) -> Totals:
    computations, entry = read_program(text)
    flop = moved = seconds = 0.0
    kernels, reduced, collectives = 0, 0, collections.Counter()

    def visit(name: str) -> None:
        nonlocal flop, moved, seconds, kernels, reduced
        ops = computations[name]
        for op in ops.values():
            if op.kind in FREE or op.kind.endswith("-done"):
                continue
            if op.kind in ("while", "call", "conditional", "async-start"):
                for called in re.findall(r"(?:calls|to_apply|body)=%?([\w.\-]+)", op.rest):
                    visit(called)
                continue
            kind = op.kind.removesuffix("-start")
            if kind in COLLECTIVES:
                collectives[kind] += 1
                reduced += op.bytes
            products = flop_of(op, ops)
            traffic = op.bytes + sum(
                bytes_read(op, i, ops[operand], computations)
                for i, operand in enumerate(op.operands)
                if operand in ops
            )
            peak = card.bf16 if op.shapes and op.shapes[0][0] in ("bf16", "f16") else card.tf32
            passes = passes_of(op, computations)
            flop, moved, kernels = flop + products, moved + passes * traffic, kernels + passes
            seconds += max(products / peak, passes * traffic / card.bandwidth)

    visit(entry)
    kinds = collections.Counter(op.kind for ops in computations.values() for op in ops.values())
    forbidden = [kind for kind in ("scatter", "select-and-scatter", "sort") if kinds[kind]]
    return Totals(flop, moved, kernels, seconds, collectives, reduced, forbidden)


def flop_of(op: Op, ops: dict[str, Op]) -> float:
    """FLOP of a convolution or matrix product by cuDNN or cuBLAS."""
    target = op.attribute(r'custom_call_target="([^"]*)"')
    if not op.operands or not ("conv" in target or "gemm" in target or "matmul" in target):
        return 0.0
    first, second = (ops[name].shapes[0][1] for name in op.operands[:2])
    result = op.shapes[0][1]
    if "conv" not in target:
        contracted = op.attribute(r'"lhs_contracting_dimensions":\[([^\]]*)\]')
        return (
            2.0
            * math.prod(result)
            * math.prod(first[int(d)] for d in re.findall(r"\d+", contracted))
        )
    # Whatever is computed, each output position meets each weight of its channel once.
    outputs, weights = result, second
    if "BackwardFilter" in target:
        outputs, weights = second, result
    elif "BackwardInput" in target:
        outputs, weights = first, second
    channels = op.attribute(r"dim_labels=\w+_(\w+)->").index("o")
    return 2.0 * math.prod(outputs) * math.prod(weights) / weights[channels]


def bytes_read(op: Op, index: int, operand: Op, computations) -> int:
    """Bytes that a kernel reads of an operand: of one that it slices or gathers, the result's."""
    if op.kind != "fusion":
        return operand.bytes
    inner = computations[op.attribute(r"calls=%?([\w.\-]+)")]
    parameter = next(
        o.name for o in inner.values() if (o.kind, o.operands) == ("parameter", [str(index)])
    )
    users = [o for o in inner.values() if parameter in o.operands]
    if users and all(o.kind in ("slice", "dynamic-slice", "gather") for o in users):
        return min(operand.bytes, sum(o.bytes for o in users))
    return operand.bytes


def passes_of(op: Op, computations) -> int:
    """How often a kernel goes over its data: once; a bitonic sort of n about log2(n)^2 / 2 times.

    The first 2048 elements or so are sorted within a block, in one pass.
    """
    called = op.attribute(r"calls=%?([\w.\-]+)") if op.kind == "fusion" else ""
    inner = list(computations[called].values()) if called else [op]
    lengths = [max(o.shapes[0][1], default=1) for o in inner if o.kind == "sort"]
    levels = max(0, max(lengths, default=1).bit_length() - 11)
    return 1 + levels * (levels + 3) // 2


def compile_step(args, backbone: str, devices: int):
    """The step of a backbone, compiled for some cards of one machine."""
    import jax
    import numpy as np
    import optax
    from flax import nnx
    from jax.experimental import topologies
    from jax.sharding import NamedSharding, PartitionSpec

    from benchmarks.ours import CLASSES, preprocessor
    from configs import common
    from lsanet_jax import losses, metrics, models, steps

    description = (
        f"gpu_device_info {{ {ALL_CARDS} {CARDS[args.card].description} }} platform_name: 'CUDA' "
        f"dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 12 minor: 9 }} "
        f"device_description_str: '{args.card}'"
    )
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=description, topology=f"1x1x{devices}"
    )
    mesh = topologies.make_mesh(topology, (devices,), ("data",))

    config = common.get_config().model
    config.update(backbone=backbone, objective=args.objective, dtype=args.dtype, stem=args.stem)
    shape = (args.size, args.size, 3)
    rngs = types.SimpleNamespace(params=lambda: jax.random.key(0))
    model = nnx.eval_shape(lambda: models.create_model(config, CLASSES, shape, rngs))
    model.train()
    graphdef, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    tx, objective = optax.adam(1e-3), losses.Objective(args.objective, model.taps)
    empty = metrics.training_means(objective.part_names).empty
    start = lambda p, b: (steps.TrainState(np.zeros((), np.int32), p, b, tx.init(p)), empty())
    state, means = jax.eval_shape(start, params, batch_stats)

    def split(tree, *axes):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        place = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)
        return jax.tree.map(place, tree)

    images = jax.ShapeDtypeStruct((7007, args.stored, args.stored, 3), np.uint8)
    labels = jax.ShapeDtypeStruct((7007,), np.int32)
    indices = jax.ShapeDtypeStruct((args.steps, args.batch), np.int32)
    step = steps.TrainStep(graphdef, tx, preprocessor(args.size), objective).compile(mesh)
    data = (split(images), split(labels), split(indices, None, "data"))
    return step.lower(split(state), split(means), *data).compile()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backbones", nargs="+")
    parser.add_argument("--card", choices=CARDS, default="rtx3090")
    parser.add_argument("--devices", default="1,4", help="numbers of cards")
    parser.add_argument("--size", type=int, default=224, help="pixels that the network sees")
    parser.add_argument("--stored", type=int, default=28, help="pixels of the images in memory")
    parser.add_argument("--batch", type=int, default=64, help="images of a step, over all cards")
    parser.add_argument("--steps", type=int, default=1, help="in one program")
    parser.add_argument("--stem", choices=("imagenet", "small"), default="imagenet")
    parser.add_argument("--objective", default="lsanet")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--fast", action="store_true", help="allow kernels that vary from run to run"
    )
    parser.add_argument("--hlo", default="", help="folder for the programs as text")
    args = parser.parse_args()

    deterministic = "" if args.fast else "--xla_gpu_deterministic_ops=true"
    os.environ["XLA_FLAGS"] = f"{FLAGS} {deterministic} {os.environ.get('XLA_FLAGS', '')}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["LSANET_FORMULATION"] = "gpu"
    print(
        "| backbone | cards | GiB | TFLOP | GB moved | kernels | all-reduces | MB reduced "
        "| floor, ms | else |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for backbone in args.backbones:
        for devices in map(int, args.devices.split(",")):
            compiled = compile_step(args, backbone, devices)
            text = compiled.as_text()
            if args.hlo:
                os.makedirs(args.hlo, exist_ok=True)
                with open(f"{args.hlo}/{backbone}-{args.card}-{devices}.txt", "w") as file:
                    file.write(text)
            totals, memory = add_up(text, CARDS[args.card]), compiled.memory_analysis()
            used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
            used += memory.output_size_in_bytes - memory.alias_size_in_bytes
            others = {k: n for k, n in totals.collectives.items() if k != "all-reduce"}
            notes = [*totals.forbidden, *([json.dumps(others)] if others else [])]
            print(
                f"| {backbone} | {devices} | {used / 2**30:.2f} | {totals.flop / 1e12:.3f} "
                f"| {totals.bytes / 1e9:.1f} | {totals.kernels} "
                f"| {totals.collectives['all-reduce']} | {totals.reduced / 1e6:.1f} "
                f"| {totals.seconds * 1e3:.1f} | {' '.join(notes)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
