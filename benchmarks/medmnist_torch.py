"""MedMNIST's training protocol in PyTorch alone: the peer of benchmarks/end_to_end.py.

ResNet-18, Adam, cross entropy, the learning rate times 0.1 at 50 % and 75 % of the epochs, as
MedMNIST's own script has them. As ours does, it scores the validation split after each epoch, and
at the end the test split with the weights of the best and of the last one. The images wait in
memory as normalised tensors, which is faster than MedMNIST's DataLoader of single images.
"""

import argparse
import copy
import json

import numpy as np
import sklearn.metrics
import torch

from benchmarks.torch_resnet import ResNet18


def load(file, size):
    """Splits of a npz as (x [n, 3, size, size], labels [n])."""
    splits = {}
    with np.load(file) as arrays:
        for name in ("train", "val", "test"):
            images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
            images = images if images.ndim == 4 else images[..., None]
            x = torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1
            if x.shape[-1] != size:
                x = torch.nn.functional.interpolate(x, size, mode="nearest")
            x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
            splits[name] = x, torch.tensor(labels.reshape(-1).astype(np.int64))
    return splits


@torch.no_grad()
def score(model, x, labels):
    """Accuracy and the mean one-against-rest AUC."""
    model.eval()
    probabilities = torch.cat([model(part).softmax(1) for part in x.split(256)]).numpy()
    model.train()
    acc = (probabilities.argmax(1) == labels.numpy()).mean()
    one_hot = np.eye(probabilities.shape[1])[labels]
    aucs = [
        sklearn.metrics.roc_auc_score(t, p) for t, p in zip(one_hot.T, probabilities.T, strict=True)
    ]
    return {"acc": float(acc), "auc": float(np.mean(aucs))}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="npz with {train,val,test}_{images,labels}")
    parser.add_argument("--size", type=int, default=28, help="pixels that the network sees")
    parser.add_argument("--stem", choices=("imagenet", "small"), default="small")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()

    splits = load(args.file, args.size)
    x, labels = splits["train"]
    torch.manual_seed(0)
    model = ResNet18(int(labels.max()) + 1, args.stem).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    milestones = [args.epochs // 2, args.epochs * 3 // 4]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
    best = {"auc": -1.0}
    for epoch in range(args.epochs):
        for batch in torch.randperm(len(x)).split(args.batch):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(x[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
        val = score(model, *splits["val"])
        if val["auc"] > best["auc"]:
            best = val | {"epoch": epoch, "weights": copy.deepcopy(model.state_dict())}
    test = last = score(model, *splits["test"])
    if best["epoch"] < args.epochs - 1:
        model.load_state_dict(best["weights"])
        test = score(model, *splits["test"])
    print(json.dumps({"val": best["auc"], "test": test, "last": last}))


if __name__ == "__main__":
    main()
