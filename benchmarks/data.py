"""The input pipeline: events to frames against a Python loop, and whether image loading keeps up with a training step.

    uv run python benchmarks/data.py

Events are synthetic recordings of N-MNIST's size (4,000 events on 34 x 34 pixels) and of a gesture's (200,000 on 128 x 128).
Contenders run once per round in an order that changes; tables show medians. Images are random tiles in mosaics (32 x 32) and
random JPEGs in folders (256 x 256, cut to 224 x 224); the training step is that of cifar10_cpu, and of Meta-SpikeFormer-15M.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from spikeformers import create_model
from spikeformers.data import ImageData, TrainingSet, train_loader
from spikeformers.data.events import Events, integrate

RECIPE = Path(__file__).parents[1] / "src" / "spikeformers" / "recipes" / "cifar10_cpu.yaml"


def recording(count: int, side: int) -> Events:
    """Random events over 300 ms."""
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, side, (2, count), np.int32)
    return Events(np.sort(draw.integers(0, 300_000, count)), x, y, draw.integers(0, 2, count, np.uint8), side, side)


def loop(events: Events, frames: int, split_by: str, side: int) -> np.ndarray:
    """A Python loop over the events, on lists, which are faster to index than arrays."""
    counts = np.zeros((frames, 2, side, side), np.int32).tolist()
    share, start = len(events) // frames, int(events.t[0])
    duration = (int(events.t[-1]) - start) // frames
    columns = zip(events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist(), strict=True)
    for i, (t, x, y, p) in enumerate(columns):
        frame = i // share if split_by == "number" else (t - start) // duration
        counts[min(frame, frames - 1)][p][y][x] += 1
    return np.array(counts, np.int32)


def events_to_frames(rounds: int):
    print(f"events to 10 frames, M events/s, medians of {rounds} rounds")
    for count, side in ((4_000, 34), (200_000, 128)):
        events = recording(count, side)
        for split_by in ("number", "time"):
            contenders = {
                "ours": lambda: integrate(events, 10, split_by=split_by, size=(side, side)),  # noqa: B023
                "loop": lambda: loop(events, 10, split_by, side),  # noqa: B023
            }
            assert np.array_equal(contenders["ours"](), contenders["loop"]())
            seconds = {name: [] for name in contenders}
            for _ in range(rounds):
                for name in random.sample(list(contenders), len(contenders)):
                    begin = time.perf_counter()
                    contenders[name]()
                    seconds[name].append(time.perf_counter() - begin)
            ratio = statistics.median(a / b for a, b in zip(seconds["loop"], seconds["ours"], strict=True))
            rates = {name: count / statistics.median(values) / 1e6 for name, values in seconds.items()}
            print(
                f"  {count:7,} events, {side}x{side}, by {split_by:6}  ours {rates['ours']:6.1f}"
                f"  Python loop {rates['loop']:5.2f}  ratio {ratio:5.1f}"
            )


def images_while_training(name: str, data: ImageData, model: torch.nn.Module, half: bool, steps: int, workers: int):
    """Trains some steps and reports how much of the time went into waiting for the next batch."""
    data.workers = workers
    torch.set_num_threads(1)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    waits, computes, batches = [], [], iter(train_loader(TrainingSet(data, 0)))
    for _ in range(steps + 2):
        begin = time.perf_counter()
        images, labels = next(batches)
        loaded = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        waits.append(loaded - begin)
        computes.append(time.perf_counter() - loaded)
    waits, computes = waits[2:], computes[2:]  # the workers have to start first
    share = sum(waits) / (sum(waits) + sum(computes))
    rate = data.batch_size / statistics.median(computes)
    print(f"  {name}, {workers} worker(s): the step takes {rate:6.1f} images/s and waits {share:6.2%} of the time")


def loading_alone(name: str, data: ImageData, batches: int):
    data.workers = 0
    loader = iter(train_loader(TrainingSet(data, 0)))
    next(loader)
    begin = time.perf_counter()
    for _ in range(batches):
        next(loader)
    print(
        f"  {name}, loading alone on one core: {batches * data.batch_size / (time.perf_counter() - begin):6.0f} images/s"
    )


def image_loading(folder: Path, steps: int):
    print("image loading beside a training step on 1 thread")
    recipe = yaml.safe_load(RECIPE.read_text())
    draw = np.random.default_rng(0)
    small = folder / "small"
    small.mkdir()
    tiles = 50 * 50
    for split in ("train", "test"):
        Image.fromarray(draw.integers(0, 255, (1600, 1600, 3), np.uint8)).save(small / f"{split}_00.png")
    labels = draw.integers(0, 10, tiles).astype(np.uint8)
    np.savez(small / "labels.npz", y_train=labels, y_test=labels, classes=[str(i) for i in range(10)])
    large = folder / "large"
    for split in ("train", "val"):
        for label in range(2):
            (large / split / str(label)).mkdir(parents=True)
            for i in range(32):
                noise = Image.fromarray(draw.integers(0, 255, (32, 32, 3), np.uint8)).resize((256, 256))
                noise.save(large / split / str(label) / f"{i}.jpg", quality=90)
    cifar = ImageData(**{**recipe["data"], "root": str(small)})
    imagenet = ImageData(
        "folder", str(large), img_size=224, auto_augment="rand-m9-mstd0.5-inc1", erase=0.25, batch_size=2
    )
    bfloat16 = recipe["training"]["precision"] == "bf16-mixed"
    small_model = create_model(recipe["model"]["name"], **recipe["model"]["kwargs"])
    for name, data, model, half in (
        ("32x32, cifar10_cpu", cifar, small_model, bfloat16),
        (
            "224x224, RandAugment, meta_spikeformer_15m T=1",
            imagenet,
            create_model("meta_spikeformer_15m", time_steps=1),
            False,
        ),
    ):
        loading_alone(name, data, 8)
        for workers in (0, 1):
            images_while_training(name, data, model, half, steps, workers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="rounds of the events' contenders (default: 11)")
    parser.add_argument("--steps", type=int, default=12, help="training steps per setting (default: 12)")
    args = parser.parse_args()
    events_to_frames(args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        image_loading(Path(folder), args.steps)


if __name__ == "__main__":
    main()
