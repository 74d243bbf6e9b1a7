"""Conversion: memory and time of a converted network, ViT-B/16 by default, against the network itself.

    uv run --group bench python benchmarks/convert.py

Memory is the largest sum of live tensors, parameters included; it should stay below three times the network's and not grow with T.
Time is that of one step and image over one forward pass of the network; it should be below two. Both are interleaved, in an order that
changes from round to round; the table shows medians and medians of per-round ratios.
"""

import argparse
import platform
import random
import statistics
import time

import timm
import torch
from model import LiveTensors

from spikeformers.transforms.sta import convert


def peak(work, parameters: int) -> float:
    """MiB that are alive at once."""
    with torch.no_grad(), LiveTensors() as live:
        work()
    return (live.peak + parameters) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--time_steps", type=int, nargs="+", default=[4, 32])
    parser.add_argument("--timed_steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    network = timm.create_model(options.model, pretrained=False).eval()
    size = network.pretrained_cfg["input_size"]
    images = torch.randn(options.batch, *size)
    parameters = sum(p.numel() * p.element_size() for p in network.parameters())
    print(
        f"{options.model}, {parameters / 2**20:.0f} MiB of parameters, batch {options.batch} of {'x'.join(map(str, size))}, float32 on "
        f"{platform.machine()}, {torch.get_num_threads()} threads; torch {torch.__version__}; {options.rounds} rounds"
    )
    modes = {mode: convert(network, images[:2], max(options.time_steps), spiking=mode) for mode in ("hybrid", "full")}
    own = peak(lambda: network(images), parameters)
    print(f"\n{'':28}{'peak MiB':>10}{'of network':>12}\n{'network':28}{own:10.0f}{1:12.2f}")
    for mode, converted in modes.items():
        for T in options.time_steps:
            found = peak(lambda converted=converted, T=T: converted(images, time_steps=T), parameters)
            print(f"{f'{mode}, T = {T}':28}{found:10.0f}{found / own:12.2f}")

    def one_forward():
        with torch.no_grad():
            network(images)
        return 1

    def some_steps(converted):
        converted(images, time_steps=options.timed_steps)
        return options.timed_steps

    contenders = {"network": one_forward} | {mode: lambda c=c: some_steps(c) for mode, c in modes.items()}
    times = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name in random.sample(list(contenders), len(contenders)):
            start = time.perf_counter()
            steps = contenders[name]()
            times[name].append((time.perf_counter() - start) / steps / options.batch)
    print(f"\n{'':28}{'ms per image and step':>24}{'of network':>12}")
    for name, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, times["network"], strict=True))
        print(f"{name:28}{statistics.median(found) * 1e3:24.1f}{ratio:12.2f}")


if __name__ == "__main__":
    main()
