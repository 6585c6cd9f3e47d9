"""Compile and step times of every backbone: python -m benchmarks.backbones [--size=64 --batch=32].

The training step of LSANet (or --objective), fp32, Adam, 7 classes. "first step" holds tracing,
compiling and one step, without a compilation cache; a step is the median of the rounds.
"""

import argparse
import statistics
import time

import jax

from benchmarks.ours import our_step
from lsanet_jax import models


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--stem", choices=("imagenet", "small"), default="imagenet")
    parser.add_argument("--objective", default="lsanet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("backbones", nargs="*", default=models.BACKBONES)
    args = parser.parse_args()

    device = f"{jax.device_count()} {jax.devices()[0].device_kind} device(s)"
    print(
        f"{args.objective}, {args.size} px, batch {args.batch}, {device}, jax {jax.__version__}\n"
    )
    print("| backbone | first step, s | step, s | images/s |\n|---|---|---|---|")
    for backbone in args.backbones:
        run = our_step(args.objective, args, backbone)
        times = []
        for _ in range(1 + args.rounds):
            start = time.perf_counter()
            run(1)
            times.append(time.perf_counter() - start)
        step = statistics.median(times[1:])
        print(f"| {backbone} | {times[0]:.1f} | {step:.3f} | {args.batch / step:.0f} |", flush=True)
        jax.clear_caches()


if __name__ == "__main__":
    main()
