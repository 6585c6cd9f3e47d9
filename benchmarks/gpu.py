"""The first hour with a GPU: see benchmarks/gpu.sh.

In this order, until --minutes are over: one step of each family with deterministic kernels; the
digests of two runs; step times beside PyTorch's (torch.compile, bfloat16, channels last, if a
PyTorch with CUDA is installed); an epoch of LSANet from command to result; the flags that may help.
Each row is printed when it is known, and all are written to --output as JSON.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import types

ROOT = pathlib.Path(__file__).resolve().parents[1]
FAMILIES = ("resnet18", "resnet50", "wrn50", "resnext50", "vgg16", "densenet121")
FLAGS = (
    "",
    "--xla_gpu_deterministic_ops=true",
    "--xla_gpu_enable_latency_hiding_scheduler=true",
    "--xla_gpu_enable_command_buffer=+CONVOLUTION,+WHILE",
)
PEERS = (("resnet18", 224), ("resnet50", 224), ("resnet18", 28))


def milliseconds(run, args) -> float:
    """Median time of a call, once it is compiled."""
    run(2)
    times = []
    for _ in range(args.rounds):
        start = time.perf_counter()
        run(args.calls)
        times.append((time.perf_counter() - start) / args.calls * 1e3)
    return statistics.median(times)


def torch_step(backbone: str, size: int, batch: int):
    """A step of PyTorch's, compiled, in bfloat16 and channels last."""
    import torch

    from benchmarks.torch_resnet import ResNet18
    from tests.torch_zoo import ResNet

    device = "cuda" if torch.cuda.is_available() else "cpu"
    made = ResNet18(7) if backbone == "resnet18" else ResNet((3, 4, 6, 3), 7)
    made = made.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(made.parameters(), 1e-3)
    model = torch.compile(made)
    x = torch.randn(batch, 3, size, size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.randint(7, (batch,), device=device)

    def run(n):
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def step_row(args) -> float:
    """In a process of its own, so that its XLA_FLAGS count: time of a step of --one."""
    from benchmarks.ours import our_step

    who, objective, backbone, size, steps, dtype = args.one.split(",")
    if who == "pytorch":
        return milliseconds(torch_step(backbone, int(size), args.batch), args)
    wanted = types.SimpleNamespace(
        size=int(size), batch=args.batch, stem="imagenet", dtype=dtype, steps=int(steps)
    )
    return milliseconds(our_step(objective, wanted, backbone), args) / int(steps)


def command(words: list[str], flags: str = "") -> str:
    """Run a Python module; returns the last line that it prints.

    Raises:
      RuntimeError: it failed; the message is the end of what it said.
    """
    environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def training(folder: str, args) -> list[str]:
    config = ["--config=quickstart", f"--workdir={folder}", "--config.train.epochs=1", "--nopage"]
    return ["lsanet_jax.main", *config, f"--config.data.image_size={args.epoch_size}"]


def rows(args, scratch: str):
    """Yield (what, how to measure it, its unit), the most important first."""

    def step(who, objective, backbone, size, steps=1, dtype="bfloat16", flags=""):
        words = [f"--one={who},{objective},{backbone},{size},{steps},{dtype}"]
        words += [f"--{name}={getattr(args, name)}" for name in ("batch", "rounds", "calls")]
        return lambda: float(command(["benchmarks.gpu", *words], flags))

    for backbone in FAMILIES:
        smoke = step("ours", "lsanet", backbone, args.smoke_size, 1, "float32", FLAGS[1])
        yield f"lsanet {backbone} {args.smoke_size} px, deterministic", smoke, "ms"
    runs = [f"{scratch}/{name}" for name in "ab"]

    def twice():
        for run in runs:
            command(training(run, args))
        return command(["lsanet_jax.audit", f"--workdir={runs[0]}", f"--against={runs[1]}"])

    yield "two runs", twice, ""
    for (backbone, size), steps in itertools.product(PEERS, (1, 10)):
        size = min(size, args.largest)
        if steps == 1:
            yield f"pytorch {backbone} {size} px", step("pytorch", "", backbone, size), "ms"
        for objective in ("baseline", "lsanet"):
            what = f"{objective} {backbone} {size} px, {steps} steps a dispatch"
            yield what, step("ours", objective, backbone, size, steps), "ms"

    def epoch():
        start = time.perf_counter()
        command(training(f"{scratch}/c", args))
        return time.perf_counter() - start

    yield "an epoch of LSANet, from command to result", epoch, "s"
    for flags in FLAGS:
        what = f"lsanet resnet18 28 px, 10 steps a dispatch, {flags or 'no flags'}"
        yield what, step("ours", "lsanet", "resnet18", 28, 10, "bfloat16", flags), "ms"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="gpu.json")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--largest", type=int, default=224, help="pixels")
    parser.add_argument("--smoke_size", type=int, default=64, help="pixels")
    parser.add_argument("--epoch_size", type=int, default=64, help="pixels")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(step_row(args))
        return
    end, found = time.monotonic() + 60 * args.minutes, []
    print("| what | found |\n|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for what, measure, unit in rows(args, scratch):
            row = {"what": what, "unit": unit}
            try:
                row["found"] = "out of time" if time.monotonic() > end else measure()
            except RuntimeError as error:
                row["error"] = str(error)
            found.append(row)
            value = row.get("found", "failed")
            value = f"{value:.2f} {unit}" if isinstance(value, float) else value
            print(f"| {what} | {value} |", flush=True)
            pathlib.Path(args.output).write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(any("error" in row for row in found))


if __name__ == "__main__":
    main()
