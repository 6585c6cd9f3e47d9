"""Whole trainings beside PyTorch's: python -m benchmarks.end_to_end [FILE.npz --size=28].

Each training is a process of its own, from the command to its exit; ours and PyTorch's
(benchmarks/medmnist_torch.py) take turns, with one epoch and with --epochs. An epoch, its
evaluation included, takes the difference; what is left of the short training is start-up (imports,
reading, compiling; our checkpoints and digests are in the epochs). Without a file, the set is the
quickstart's: 1024 synthetic images of 64 pixels.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]


def write_synthetic(file: pathlib.Path) -> None:
    from configs import quickstart
    from lsanet_jax.data.sources import synthetic

    config = quickstart.get_config().data
    dataset = synthetic.make_synthetic(**config.synthetic, size=config.size)
    arrays = {}
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        arrays |= {f"{name}_images": split.images, f"{name}_labels": split.labels}
    np.savez(file, **arrays)


def commands(args, epochs: int, workdir: str) -> dict[str, list[str]]:
    ours = {
        "data.name": "npz",
        "data.path": args.file,
        "data.image_size": args.size,
        "model.stem": args.stem,
        "model.objective": args.objective,
        "train.batch_size": args.batch,
        "train.epochs": epochs,
    }
    ours = [f"--config.{field}={value}" for field, value in ours.items()]
    sizes = {"size": args.size, "stem": args.stem, "batch": args.batch, "epochs": epochs}
    theirs = [f"--{name}={value}" for name, value in sizes.items()]
    flags = ["--config=configs/common.py", f"--workdir={workdir}", "--nopage"]
    main = ["lsanet_jax.main", *flags, *ours]
    return {"pytorch": ["benchmarks.medmnist_torch", args.file, *theirs], "ours": main}


def seconds(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", help="npz with {train,val,test}_{images,labels}")
    parser.add_argument(
        "--size", type=int, default=0, help="pixels; default 28, or 64 without file"
    )
    parser.add_argument("--stem", choices=("imagenet", "small"), default=None)
    parser.add_argument("--batch", type=int, default=0, help="default 128, or 64 without a file")
    parser.add_argument("--objective", default="baseline", help="of ours")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--cache", action="store_true", help="keep compiled programs over the rounds"
    )
    args = parser.parse_args()
    if args.epochs < 2:
        parser.error("--epochs must be at least 2, to tell an epoch from the start-up")

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        args.size = args.size or (28 if args.file else 64)
        args.batch = args.batch or (128 if args.file else 64)
        args.stem = args.stem or ("small" if args.file else "imagenet")
        if args.file is None:
            args.file = str(folder / "synthetic.npz")
            write_synthetic(folder / "synthetic.npz")
        args.file = str(pathlib.Path(args.file).absolute())
        environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        if args.cache:
            environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "cache")
        else:
            environment["LSANET_COMPILATION_CACHE"] = "off"
        times = {}
        for i in range(args.rounds):
            for epochs in (1, args.epochs):
                for name, command in commands(args, epochs, folder / f"{i}-{epochs}").items():
                    taken = seconds(command, environment)
                    times.setdefault((name, epochs), []).append(taken)
                    print(f"round {i + 1}: {name}, {epochs} epochs: {taken:.1f} s", flush=True)

    long, short = (
        {name: statistics.median(times[name, epochs]) for name in ("pytorch", "ours")}
        for epochs in (args.epochs, 1)
    )
    epoch = {name: (long[name] - short[name]) / (args.epochs - 1) for name in long}
    start = {name: short[name] - epoch[name] for name in long}
    print(f"\n{'seconds':24} {'pytorch':>8} {'ours':>8} {'pytorch / ours':>15}")
    rows = {f"process, {args.epochs} epochs": long, "an epoch": epoch, "start-up": start}
    for what, row in rows.items():
        ratio = row["pytorch"] / row["ours"]
        print(f"{what:24} {row['pytorch']:8.1f} {row['ours']:8.1f} {ratio:15.2f}")


if __name__ == "__main__":
    main()
