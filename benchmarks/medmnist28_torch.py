"""The peer of configs/medmnist28.py in PyTorch: python -m benchmarks.medmnist28_torch --seed=0.

ResNet-18 with the small stem under the protocol of that config, on the same batches in the same
order, to tell a fault of ours from what the protocol gives. What our protocol leaves open can be
varied:
--init=pytorch takes PyTorch's default initialisation, as MedMNIST's own code does, and
--short_batch its last batch, which has what is left and is not filled up.
"""

import argparse
import json
import time

import torch
import tqdm

from benchmarks.torch_resnet import ResNet18
from lsanet_jax import metrics
from lsanet_jax.data.feed.order import epoch_order
from lsanet_jax.data.sources import medmnist


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="breastmnist")
    parser.add_argument("--root", default="", help="folder of the MedMNIST files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--init", choices=("ours", "pytorch"), default="ours")
    parser.add_argument("--short_batch", action="store_true")
    args = parser.parse_args()

    dataset = medmnist.load_medmnist(args.name, root=args.root)
    tensors = {}
    for key in ("train", "val", "test"):
        images = dataset.split(key).images
        x = torch.tensor((images / 255 - 0.5) / 0.5, dtype=torch.float32).permute(0, 3, 1, 2)
        tensors[key] = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
    labels = torch.tensor(dataset.train.labels, dtype=torch.int64)

    torch.manual_seed(args.seed)
    model = ResNet18(dataset.num_classes, stem="small")
    if args.init == "pytorch":
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.reset_parameters()
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    milestones = [args.epochs // 2, args.epochs * 3 // 4]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)

    def scores(key):
        model.eval()
        with torch.no_grad():
            logits = torch.cat([model(x) for x in tensors[key].split(256)])
        model.train()
        probabilities = torch.softmax(logits, 1).numpy()
        truth = dataset.split(key).labels
        return {
            "acc": metrics.accuracy(truth, probabilities, dataset.task),
            "auc": metrics.auc(truth, probabilities, dataset.task),
        }

    best, started = None, time.perf_counter()
    for epoch in tqdm.trange(1, args.epochs + 1, mininterval=30):
        order = epoch_order(args.seed, epoch, len(labels), args.batch)
        for i, batch in enumerate(order):
            if args.short_batch:
                batch = batch[: len(labels) - i * args.batch]
            indices = torch.tensor(batch, dtype=torch.int64)
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(
                model(tensors["train"][indices]), labels[indices]
            ).backward()
            optimizer.step()
        schedule.step()
        val = scores("val")
        if best is None or val["auc"] > best["val"]["auc"]:
            best = {"best_epoch": epoch, "val": val, "test": scores("test")}
    result = vars(args) | best | {"last": scores("test")}
    print(json.dumps(result | {"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
