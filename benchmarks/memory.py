"""Peak memory of streaming a set that does not fit: python -m benchmarks.memory [--gigabytes=4].

Writes a folder of JPEG files of 224 pixels that would take so many gigabytes (1e9 bytes) decoded,
starts `lsanet_jax.main` on it with `configs/folder.py` (ResNet-18, LSANet) and the Grain pipeline,
and once a second sums up, over the training process and all its children, the resident memory as
/proc has it: Pss, where memory that processes share counts once, and VmRSS, where it counts in
each. After so many training steps, or seconds of training, it sends SIGTERM, and prints the peaks
of each
phase: starting (listing the files), checking (the model is made, and every image decoded once for
the fingerprint) and training.

Batches that wait between two processes are in nobody's memory: a few MB per worker, which neither
sum has. Linux only. Flags that are not known here go to `lsanet_jax.main`, such as
--config.eval.batch_size=64. What an evaluation needs does not depend on the size of the set, and
shows with a --steps beyond the first epoch, as of a small set: --gigabytes=0.1 --steps=60.
"""

import argparse
import collections
import contextlib
import io
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

SIZE = 224  # Pixels, of configs/folder.py.
CLASSES = 4
HELD_OUT = 256  # Images in each of val and test.
REACH = 3.0  # GB.


def write_images(root: pathlib.Path, counts: dict[str, int], distinct: int) -> None:
    """A folder for `load_folder`, most of whose files are hard links to the first `distinct`."""
    from PIL import Image
    from tqdm import tqdm

    from lsanet_jax.data.sources import synthetic

    options = {"num_train": distinct, "num_val": 1, "num_test": 1, "size": SIZE}
    made = synthetic.make_synthetic(task="multi-class", num_classes=CLASSES, **options).train
    encoded = []
    for index, (image, label) in enumerate(zip(made.images, made.labels, strict=True)):
        data = io.BytesIO()
        Image.fromarray(image).save(data, "JPEG", quality=90)
        encoded.append((f"{label}/{index}.jpg", data.getvalue()))
    for key, count in counts.items():
        for label in range(CLASSES):
            (root / key / str(label)).mkdir(parents=True)
        for index in tqdm(range(count), f"Writing {key}", unit=" files", mininterval=2):
            name, data = encoded[index % distinct]
            if index < distinct:
                (root / key / name).write_bytes(data)
            else:
                link = (root / key / name).with_name(f"{index}.jpg")
                os.link(root / key / name, link)


def process_tree(root: int) -> list[int]:
    """The ids of a process and of all that descend from it."""
    children = collections.defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):  # It has ended.
                after_name = pathlib.Path("/proc", entry, "stat").read_text().rpartition(")")[2]
                children[int(after_name.split()[1])].append(int(entry))
    found = [root]
    for process in found:
        found += children[process]
    return found


class Resident(NamedTuple):
    """Memory in units of 1e9 bytes; the highest values seen, of a phase."""

    pss: float = 0
    rss: float = 0
    processes: int = 0

    def peak(self, other: "Resident") -> "Resident":
        return Resident(*map(max, self, other))


def resident(root: int) -> Resident:
    """Of a process and its children together."""
    total = Resident()
    for process in process_tree(root):
        with contextlib.suppress(OSError, TypeError):  # It has ended, or is about to.
            pss, rss = field(process, "smaps_rollup", "Pss"), field(process, "status", "VmRSS")
            total = Resident(total.pss + pss, total.rss + rss, total.processes + 1)
    return total


def field(process: int, file: str, name: str) -> float:
    text = pathlib.Path(f"/proc/{process}/{file}").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024 / 1e9


class Watch:
    """Tells from what the run has written where it stands."""

    def __init__(self, log: pathlib.Path, workdir: pathlib.Path):
        self.log, self.workdir = log, workdir

    def phase(self) -> str:
        if (self.workdir / "manifest.json").exists():  # It has the fingerprint.
            return "training"
        return "checking" if "the network sees" in self.log.read_text() else "starting"

    def steps(self) -> int:
        """Training steps done, as the progress bar last said; it does so every 30 s at most."""
        shown = re.findall(r"\| (\d+)/\d+ \[", self.log.read_text())
        return int(shown[-1]) if shown else 0

    def epochs(self) -> int:
        """Epochs done, with their evaluation."""
        file = self.workdir / "metrics.jsonl"
        return len(file.read_text().splitlines()) if file.exists() else 0


def train(root: pathlib.Path, args, flags: list[str]) -> str:
    """Runs the training until it has done enough; returns a table of its peaks by phase."""
    log, workdir = root / "log", root / "workdir"
    command = [sys.executable, "-m", "lsanet_jax.main", "--config=configs/folder.py"]
    command += [f"--workdir={workdir}", f"--config.data.path={root / 'images'}"]
    command += ["--config.data.pipeline=grain", f"--config.data.workers={args.workers}"]
    command += [f"--config.train.batch_size={args.batch}", *flags]
    print("python", *command[1:], flush=True)
    watch, peaks, times, said, highest = Watch(log, workdir), {}, {}, -math.inf, 0.0
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        while process.poll() is None:
            now, phase, steps = time.monotonic(), watch.phase(), watch.steps()
            if phase not in times:
                times[phase], said = [now], -math.inf
            times[phase][1:] = [now]
            current = resident(process.pid)
            peaks[phase] = current.peak(peaks.get(phase, current))
            with contextlib.suppress(OSError, TypeError):
                highest = field(process.pid, "status", "VmHWM")
            if now - said >= 15:
                said, since = now, now - times["starting"][0]
                line = f"{steps} steps, {current.pss:.2f} GB, at most {peaks[phase].pss:.2f}"
                print(f"{since:6.0f} s  {phase}: {line}", flush=True)
            enough = steps >= args.steps or now - times[phase][0] >= args.seconds
            if phase == "training" and enough:
                break
            time.sleep(args.every)
        else:
            end = log.read_text()[-2000:]
            sys.exit(f"the training ended by itself, with exit code {process.returncode}:\n{end}")
        process.send_signal(signal.SIGTERM)
        print(f"SIGTERM: exit code {process.wait(120)}", flush=True)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()

    done = f"at least {watch.steps()} steps and {watch.epochs()} evaluations"
    rows = [
        f"batch {args.batch}, {args.workers} workers; {done}",
        f"{'phase':10} {'Pss, GB':>8} {'VmRSS, GB':>10} {'processes':>10} {'seconds':>8}",
    ]
    for phase, (pss, rss, count) in peaks.items():
        seconds = times[phase][-1] - times[phase][0]
        rows.append(f"{phase:10} {pss:8.2f} {rss:10.2f} {count:10} {seconds:8.0f}")
    peak = max(peak.pss for peak in peaks.values())
    rows.append(f"the training process alone, between the samples too (VmHWM): {highest:.2f} GB")
    rows.append(f"peak: {peak:.2f} GB (reach: below {REACH:g} GB)")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of decoded training images")
    parser.add_argument("--distinct", type=int, default=300, help="different images among them")
    parser.add_argument("--batch", type=int, default=16, help="images per step")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode")
    parser.add_argument("--steps", type=int, default=100, help="of training, then it is stopped")
    parser.add_argument("--seconds", type=float, default=600, help="of training, at most")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two samples")
    parser.add_argument("--folder", help="where to write some hundred MB; default: the system's")
    args, flags = parser.parse_known_args()

    count = round(args.gigabytes * 1e9 / (SIZE * SIZE * 3))
    counts = {"train": count, "val": HELD_OUT, "test": HELD_OUT}
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        root = pathlib.Path(place)
        write_images(root / "images", counts, min(args.distinct, count))
        table = train(root, args, flags)
    print(f"\n{count} training images, {args.gigabytes:g} GB decoded, {table}")


if __name__ == "__main__":
    main()
