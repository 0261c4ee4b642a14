"""The loops that training is measured against; each run is a process of its own.

    python tests/benchmarks/loops.py bare --epochs 2 --device cuda

`bare` is the practical limit: the whole data set in the device's memory, the same network, the
same optimiser, and nothing else: no metrics, no log, no checkpoint, no bar. `usual` is the same
with the network as one usually writes it, biases inside the convolutions, and memory as the C
library keeps it. `reference` is the loop of most examples: torchvision's data set, a transform for
each image, a plain loader, that network, an optimiser that is not fused. All test at the end and
print one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import MNIST
from torchvision.datasets.utils import extract_archive

from mnist_lit.data.sources import PACKAGED_MNIST, default_data_dir, load
from mnist_lit.memory import keep_freed_memory
from mnist_lit.models import CNN, Shape

NUM_TRAIN = 55_000  # as many as `fit` trains on
MEAN, STD = 0.1307, 0.3081

Batches = Iterable[tuple[Tensor, Tensor]]


def bare(batch_size: int, device: str) -> tuple[nn.Module, bool, Callable[[], Batches]]:
    keep_freed_memory()
    network = CNN(*Shape(), dropout=0.25).to(device).to(memory_format=torch.channels_last)
    network.mean.fill_(MEAN)
    network.std.fill_(STD)
    return network, True, _in_memory(batch_size, device)


def usual(batch_size: int, device: str) -> tuple[nn.Module, bool, Callable[[], Batches]]:
    epoch = _in_memory(batch_size, device)

    def normalised() -> Batches:
        for images, labels in epoch():
            yield (images - MEAN) / STD, labels

    network = _usual_network().to(device).to(memory_format=torch.channels_last)
    return network, False, normalised


def _in_memory(batch_size: int, device: str) -> Callable[[], Batches]:
    images, labels = (
        part[:NUM_TRAIN].to(device)  # type: ignore[index]
        for part in load("mnist", default_data_dir()).train
    )

    def epoch() -> Batches:
        for chosen in torch.split(torch.randperm(NUM_TRAIN, device=device), batch_size):
            yield images[chosen].float() / 255, labels[chosen]

    return epoch


def reference(batch_size: int, device: str) -> tuple[nn.Module, bool, Callable[[], Batches]]:
    data = MNIST(_extracted(), transform=_transform())
    loader = DataLoader(Subset(data, range(NUM_TRAIN)), batch_size=batch_size, shuffle=True)

    def moved() -> Batches:
        for images, labels in loader:
            yield images.to(device), labels.to(device)

    return _usual_network().to(device), False, moved


def _extracted() -> Path:
    """Extract the packaged files where torchvision looks for them; return its root."""
    raw = default_data_dir() / "MNIST" / "raw"
    if not raw.is_dir():
        raw.mkdir(parents=True)
        for packed in PACKAGED_MNIST.glob("*.gz"):
            extract_archive(packed, raw)
    return default_data_dir()


def _usual_network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5), nn.Dropout2d(0.25), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(0.25), nn.Linear(50, 10)),
    )


def _transform() -> Callable[[object], Tensor]:
    steps = [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
    composed: Callable[[object], Tensor] = transforms.Compose(steps)
    return composed


def _test(network: nn.Module, normalised: bool, device: str) -> float:
    data = MNIST(_extracted(), train=False, transform=_transform())
    network.eval()
    num_right = 0
    with torch.inference_mode():
        for images, labels in DataLoader(data, batch_size=1000):
            images, labels = images.to(device), labels.to(device)
            answers = network(images * STD + MEAN if normalised else images).argmax(1)
            num_right += int((answers == labels).sum())
    return num_right / len(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop", choices=["bare", "usual", "reference"])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=100)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()

    torch.manual_seed(1)
    make = {"bare": bare, "usual": usual, "reference": reference}[args.loop]
    network, normalises, epoch = make(args.batch_size, args.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=args.loop != "reference")
    seconds = []
    for _ in range(args.epochs):
        network.train()
        start = time.perf_counter()
        for images, labels in epoch():
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            torch.autograd.backward(loss)
            optimizer.step()
        if args.device == "cuda":
            torch.cuda.synchronize()  # steps are only queued until then
        seconds.append(time.perf_counter() - start)
    result = {
        "images_per_s": NUM_TRAIN / min(seconds),
        "test/acc": _test(network, normalises, args.device),
        "fit_seconds": sum(seconds),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
