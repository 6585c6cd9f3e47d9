"""Time of a training step beside PyTorch's: python -m benchmarks.train_step [--size=28 --batch=64].

Ours and PyTorch's ResNet-18 (fp32, Adam, cross entropy, channels last, the same number of threads)
take turns in one process, a few steps each, so that a noisy machine disturbs both alike. The ratio
is the median over the rounds. Ours includes gathering, resizing and normalising the images from
uint8; PyTorch gets its batch ready made. LSANet's cost is its step over the baseline's in the same
rounds.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import torch

from benchmarks.ours import CLASSES, our_step
from benchmarks.torch_resnet import ResNet18

FLOP_PER_IMAGE = {("imagenet", 28): 0.0345e9, ("imagenet", 224): 1.814e9, ("small", 28): 0.457e9}
"""Multiply-adds of ResNet-18's forward pass; training needs 3 times as many, 2 FLOP each."""


def torch_step(args):
    """Return a function that does n PyTorch steps."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"  # the same as ours
    model = ResNet18(CLASSES, args.stem).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x = torch.randn(args.batch, 3, args.size, args.size)
    x = x.to(device, memory_format=torch.channels_last)
    y = torch.randint(CLASSES, (args.batch,), device=device)

    def run(n):
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def gemm_peak(seconds=0.5) -> float:
    """FLOP/s of a large fp32 matrix product in JAX: the ceiling for a step."""
    a = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        product(a, a).block_until_ready()
        count += 1
    return count * 2 * 2048**3 / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=28, help="pixels")
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--stem", choices=("imagenet", "small"), default="imagenet")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; XLA uses all cores")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="about, per turn")
    args = parser.parse_args()
    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        parser.error("jax is on a GPU and this PyTorch has no CUDA: install one of its CUDA builds")

    contenders = {
        "pytorch": torch_step(args),
        "baseline": our_step("baseline", args),
        "lsanet": our_step("lsanet", args),
    }
    counts = {}
    for name, run in contenders.items():
        start = time.perf_counter()
        run(1)
        print(f"{name}: first step {time.perf_counter() - start:.1f} s", flush=True)
        run(1)
        start = time.perf_counter()
        run(2)
        counts[name] = max(2, round(args.seconds / ((time.perf_counter() - start) / 2)))
    times = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run(counts[name])
            times[name].append((time.perf_counter() - start) / counts[name])

    peak = gemm_peak()
    flop = 6 * FLOP_PER_IMAGE.get((args.stem, args.size), float("nan")) * args.batch
    print(
        f"\nResNet-18, {args.stem} stem, {args.size} px, batch {args.batch}, {jax.device_count()} "
        f"{jax.devices()[0].platform} device(s), jax {jax.__version__}, torch {torch.__version__}"
    )
    print(
        f"fp32 matrix product: {peak / 1e9:.0f} GFLOP/s; floor of a step: {flop / peak * 1e3:.0f} "
        f"ms"
    )
    print(f"{'':10} {'ms/step':>8} {'images/s':>9} {'GFLOP/s':>8}")
    for name, values in times.items():
        step = statistics.median(values)
        rate = "" if name == "lsanet" else f"{flop / step / 1e9:8.0f}"
        print(f"{name:10} {step * 1e3:8.1f} {args.batch / step:9.1f} {rate}")
    ratio = lambda a, b: statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))
    print(f"baseline, speed over pytorch: {ratio('pytorch', 'baseline'):.2f} x")
    print(f"lsanet, speed over pytorch's baseline: {ratio('pytorch', 'lsanet'):.2f} x")
    print(f"lsanet step / baseline step: {ratio('lsanet', 'baseline'):.3f}")


if __name__ == "__main__":
    main()
