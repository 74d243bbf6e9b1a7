"""What profiling costs on a CPU: `profile` and `audit` against a plain forward pass on the same batches.

    uv run python benchmarks/profiling.py

Contenders run interleaved, in an order that changes from round to round; the table shows medians and medians of per-round ratios.
"""

import argparse
import platform
import random
import statistics
import time

import torch
from torch import Tensor, nn

import spikeformers


def settle(model: nn.Module, images: Tensor) -> None:
    """Running statistics of the images, so that a fresh network fires in eval mode too."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        for _ in range(2):
            model.train()(images)
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    print(
        f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads, float32, {options.batches} batches"
    )
    print(f"{'':48}{'forward ms':>12}{'profile':>10}{'audit':>10}")
    for name, batch, memory_format in [
        ("meta_spikeformer_15m", 1, torch.contiguous_format),
        ("meta_spikeformer_15m", 1, torch.channels_last),
        ("spikingformer_cifar_4_384", 8, torch.contiguous_format),
        ("meta_spikeformer_cifar", 32, torch.contiguous_format),
        ("spikingformer_dvs_2_256", 1, torch.contiguous_format),
    ]:
        model = spikeformers.create_model(name)
        size = model.pretrained_cfg["input_size"]
        shape = (model.time_steps, batch, *size) if size[0] == 2 else (batch, *size)
        settle(model, torch.randn(shape))
        model.to(memory_format=memory_format)
        batches = [torch.randn(shape) for _ in range(options.batches)]

        def forward(model=model, batches=batches):
            with torch.no_grad():
                for x in batches:
                    model(x)

        contenders = {
            "forward": forward,
            "profile": lambda model=model, batches=batches: spikeformers.profile(model, batches, merged=False),
            "audit": lambda model=model, batches=batches: spikeformers.audit(model, batches),
        }
        times = {key: [] for key in contenders}
        for contender in contenders.values():
            contender()
        for _ in range(options.rounds):
            for key in random.sample(list(contenders), len(contenders)):
                start = time.perf_counter()
                contenders[key]()
                times[key].append(time.perf_counter() - start)
        ratios = {
            key: statistics.median(a / b for a, b in zip(times[key], times["forward"], strict=True))
            for key in contenders
        }
        label = f"{name}, batch {batch}, {str(memory_format).removeprefix('torch.').removesuffix('_format')}"
        forward_ms = statistics.median(times["forward"]) / options.batches * 1e3
        print(f"{label:48}{forward_ms:12.1f}{ratios['profile']:9.2f}x{ratios['audit']:9.2f}x", flush=True)


if __name__ == "__main__":
    main()
