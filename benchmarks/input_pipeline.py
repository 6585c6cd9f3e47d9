"""Images per second of every input pipeline: python -m benchmarks.input_pipeline [--batch=64].

Over one folder of JPEG files, PyTorch's DataLoader and our pipelines take turns, a few seconds each, in
one process, so that a noisy machine disturbs them alike; a ratio is the median over the rounds. What a
number includes:

    DataLoader            decode and resize each file (lsanet_jax.data.sources.images.decode, as ours does), make
                          uint8 batches in the host's memory
    Grain, processes      the same, and the batch is put on the device; as many workers
    Grain, threads        the same in threads of the training process, one per core
    Grain, arrays         images decoded before: gather a uint8 batch and put it on the device
    device, preprocess    images decoded and put on the device before: gather and normalise a float32
                          batch there; this is all that the device pipeline does

Batches are taken and dropped as fast as they come, those made before a turn are not counted, and the
files lie in the page cache. CPU time, of this process and its workers, hardly depends on what else the
machine does (it is read from /proc: Linux only). Start-up, until the first batch, is told apart: of worker
processes, which both libraries spawn here (a forked one starts faster, but not safely beside JAX), or of
compiling.

At the end, what the device pipeline adds to a training step of ResNet-18: the step with gather and
normalisation inside, over the same step fed with one float32 batch that is ready on the device.
"""

import argparse
import contextlib
import functools
import io
import itertools
import os
import pathlib
import statistics
import tempfile
import time
import warnings

import jax
import numpy as np
from PIL import Image

from benchmarks.memory import process_tree
from lsanet_jax.data.dataset import SPLITS, Dataset
from lsanet_jax.data.feed.order import Plan
from lsanet_jax.data.feed.resident import Resident
from lsanet_jax.data.preprocess import preprocess
from lsanet_jax.data.sources import folder, synthetic
from lsanet_jax.data.sources.images import decode

# Torch and Grain are imported where they are used: each worker process runs the lines up here.

CLASSES = 4
MADE_AHEAD = 6  # batches per worker that are ready or under way, at most, when a turn starts
MEAN = STD = (0.5,)

warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # Collating copies it.


class Files:
    """The dataset that DataLoader is given."""

    def __init__(self, files, labels, size: int):
        self.files, self.labels, self.size = files, labels, size

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return decode(self.files[index], size=self.size), self.labels[index]


class Shuffled:
    """A sampler that never ends: epoch after epoch, each in a random order of its own."""

    def __init__(self, count: int):
        self.count = count

    def __iter__(self):
        for epoch in itertools.count():
            yield from np.random.default_rng(epoch).permutation(self.count).tolist()


def write_images(root: pathlib.Path, size: int, count: int, distinct: int) -> None:
    """A folder for `load_folder`: `count` JPEG files for training, one per class for val and test."""
    counts = {"num_train": distinct, "num_val": CLASSES, "num_test": CLASSES}
    made = synthetic.make_synthetic(task="multi-class", num_classes=CLASSES, size=size, **counts)
    for key in SPLITS:
        split = made.split(key)
        for label in range(CLASSES):
            (root / key / str(label)).mkdir(parents=True)
        for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            data = io.BytesIO()
            Image.fromarray(image).save(data, "JPEG", quality=90)
            for copy in range(index, count if key == "train" else index + 1, distinct):
                (root / key / str(label) / f"{copy}.jpg").write_bytes(data.getvalue())


def data_loader(listing: folder.Listing, size: int, args):
    import torch

    files = Files(listing.paths("train"), listing.train.labels, size)
    loader = torch.utils.data.DataLoader(
        files,
        args.batch,
        sampler=Shuffled(len(files)),
        num_workers=args.workers,
        prefetch_factor=2 if args.workers else None,
        persistent_workers=args.workers > 0,
        # A process in which JAX runs cannot be forked safely.
        multiprocessing_context="spawn" if args.workers else None,
    )
    yield from loader


def all_epochs(feed):
    for epoch in itertools.count(1):
        yield from feed.train(epoch)


def grain_batches(dataset: Dataset, workers: int, args):
    from lsanet_jax.data.feed import streaming

    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    feed = streaming.Streamed(dataset, plan(dataset, args), mesh, workers=workers)
    try:
        for batch in all_epochs(feed):
            yield jax.block_until_ready(batch)
    finally:
        feed.close()


def device_batches(dataset: Dataset, args):
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    feed = Resident(dataset, plan(dataset, args), mesh)
    prepare = preprocessor(dataset.train.images.shape[1])
    gather = jax.jit(lambda images, labels, indices: (prepare(images[indices]), labels[indices]))
    for images, labels, indices in all_epochs(feed):
        yield jax.block_until_ready(gather(images, labels, indices[0]))


def plan(dataset: Dataset, args) -> Plan:
    return Plan(0, 10**6, len(dataset.train), batch_size=args.batch, eval_batch_size=args.batch)


def preprocessor(size: int):
    return functools.partial(
        preprocess, image_size=size, resize="nearest", as_rgb=True, mean=MEAN, std=STD
    )


def measure_case(stored: int, size: int, args) -> str:
    """The rates of all pipelines on files of `stored` pixels, decoded to `size`, as a table."""
    case = f"{stored} -> {size} px"
    with tempfile.TemporaryDirectory() as root:
        print(f"\n{case}: writing {args.images} files", flush=True)
        write_images(pathlib.Path(root), stored, args.images, min(args.distinct, args.images))
        listing = folder.list_folder(root)
        in_files = folder.load_folder(root, size=size, memory_mb=0)
        in_memory = folder.load_folder(root, size=size)
        contenders = {
            f"DataLoader, {args.workers} workers": data_loader(listing, size, args),
            f"Grain, {args.workers} processes": grain_batches(in_files, args.workers, args),
            "Grain, threads": grain_batches(in_files, 0, args),
            "Grain, arrays": grain_batches(in_memory, 0, args),
            "device, preprocess": device_batches(in_memory, args),
        }
        try:
            start_up, rates, cpu = take_turns(contenders, args)
        finally:
            for batches in contenders.values():
                batches.close()
    reference = next(iter(contenders))
    head = f"{'images/s':>9} {'/ DataLoader':>12} {'CPU ms/image':>12} {'start-up, s':>11}"
    rows = [f"{case:24} {head}"]
    for name, values in rates.items():
        ratio = median_ratio(values, rates[reference])
        rate = statistics.median(values)
        spent = 1e3 * statistics.median(cpu[name])
        rows.append(f"{name:24} {rate:9.0f} {ratio:12.2f} {spent:12.3f} {start_up[name]:11.1f}")
    return "\n".join(rows)


def take_turns(contenders: dict, args) -> tuple[dict, dict, dict]:
    """Seconds until each one's first batch; images per second and CPU seconds per image by round."""
    start_up = {}
    for name, batches in contenders.items():
        start = time.perf_counter()
        next(batches)
        start_up[name] = time.perf_counter() - start
        print(f"{name}: first batch after {start_up[name]:.1f} s", flush=True)
    at_once = max(1, args.workers)  # Their batches come in bursts.
    made_ahead = MADE_AHEAD * at_once
    rates, cpu = {name: [] for name in contenders}, {name: [] for name in contenders}
    for number in range(1 + args.rounds):  # The first is to warm up.
        for name, batches in contenders.items():
            for _ in range(made_ahead):
                next(batches)
            images, start, start_cpu = 0, time.perf_counter(), cpu_seconds()
            while (seconds := time.perf_counter() - start) < args.seconds:
                for _ in range(at_once):
                    next(batches)
                images += at_once * args.batch
            rates[name].append(images / seconds)
            cpu[name].append((cpu_seconds() - start_cpu) / images)
            time.sleep(made_ahead * args.batch * seconds / images)  # Workers end what they began.
        latest = ", ".join(f"{values[-1]:.0f}" for values in rates.values())
        print(f"round {number} of {args.rounds}: {latest} images/s", flush=True)
    for values in (*rates.values(), *cpu.values()):
        del values[0]
    return start_up, rates, cpu


def cpu_seconds() -> float:
    """Of this process and those that it started; to a hundredth."""
    ticks = 0
    for process in process_tree(os.getpid()):
        with contextlib.suppress(OSError):  # It has ended.
            after_name = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
            ticks += sum(map(int, after_name.split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def median_ratio(these: list[float], those: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def step_runner(args, dataset: Dataset, resident: bool):
    """Returns a function that does n training steps and waits for them."""
    import optax

    from configs import common
    from lsanet_jax import losses, metrics, models, steps

    model = common.get_config().model
    model.update(objective=args.objective, backbone="resnet18")
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    size = dataset.train.images.shape[1]
    create = lambda rngs: models.create_model(model, CLASSES, (size, size, 3), rngs)
    tx = optax.adam(1e-3)
    graphdef, state = steps.init(create, tx, jax.random.key(0), mesh)
    loss = losses.Objective(args.objective, (4,) if args.objective == "baseline" else model.taps)
    prepare = preprocessor(size)
    step = steps.TrainStep(
        graphdef, tx, prepare if resident else lambda x: x, loss, resident=resident
    ).compile(mesh)
    means = metrics.training_means(loss.part_names).empty()
    batches = all_epochs(Resident(dataset, plan(dataset, args), mesh))
    if not resident:
        images, labels, (indices,) = next(batches)
        ready = jax.jit(prepare)(images[indices])[None], labels[indices][None]
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "data"))
        batches = itertools.repeat(jax.device_put(ready, sharding))
    box = [state, means]

    def run(n):
        for batch in itertools.islice(batches, n):
            *box[:], parts = step(*box, *batch)
        jax.block_until_ready((box, parts))

    return run


def measure_step(args) -> str:
    """The training step with the device pipeline in it, and without."""
    print(f"\ntraining step, {args.step_size} px", flush=True)
    dataset = synthetic.make_synthetic(
        task="multi-class",
        num_classes=CLASSES,
        num_train=1024,
        num_val=CLASSES,
        num_test=CLASSES,
        size=args.step_size,
    )
    contenders = {
        "device pipeline": step_runner(args, dataset, resident=True),
        "batch made ready": step_runner(args, dataset, resident=False),
    }
    for name, run in contenders.items():
        start = time.perf_counter()
        run(1)
        print(f"{name}: first step {time.perf_counter() - start:.1f} s", flush=True)
        run(2)
    start = time.perf_counter()
    run(4)
    count = max(2, round(4 * args.step_seconds / (time.perf_counter() - start)))
    times = {name: [] for name in contenders}
    for number in range(args.step_rounds):
        order = list(contenders.items())
        for name, run in order if number % 2 else reversed(order):
            start = time.perf_counter()
            run(count)
            times[name].append((time.perf_counter() - start) / count)
        latest = ", ".join(f"{values[-1] * 1e3:.1f}" for values in times.values())
        print(f"round {number + 1} of {args.step_rounds}: {latest} ms/step", flush=True)
    title = f"{args.step_size} px, {args.objective}"
    rows = [f"{title:24} {'ms/step':>9}"]
    rows += [f"{name:24} {statistics.median(v) * 1e3:9.2f}" for name, v in times.items()]
    ratio = median_ratio(*times.values())
    rows.append(f"the device pipeline adds {100 * (ratio - 1):+.1f} % to a step (reach: below 3 %)")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases",
        nargs="*",
        default=["32:28", "28:28", "256:224", "224:224"],
        metavar="STORED:SIZE",
        help="pixels of the files and of the images; none: only the training step",
    )
    parser.add_argument("--images", type=int, default=2000, help="files per case")
    parser.add_argument("--distinct", type=int, default=300, help="different images among them")
    parser.add_argument("--batch", type=int, default=64, help="images")
    parser.add_argument("--workers", type=int, default=2, help="of DataLoader and Grain")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="about, per turn")
    parser.add_argument("--objective", choices=("baseline", "lsanet"), default="baseline")
    parser.add_argument("--step_size", type=int, default=28, help="pixels, of the training step")
    parser.add_argument("--step_rounds", type=int, default=40, help="0: no training step")
    parser.add_argument("--step_seconds", type=float, default=0.5, help="about, per turn")
    args = parser.parse_args()

    tables = [measure_case(*map(int, case.split(":")), args) for case in args.cases]
    if args.step_rounds:
        tables.append(measure_step(args))
    from importlib import metadata

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "grain", "torch"))
    device = jax.devices()[0]
    print(f"\nbatch {args.batch}, {device.platform} ({device.device_kind}), {versions}")
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
