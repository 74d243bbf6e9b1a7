"""Shrinking time steps: VGG-9 with (8, 6, 4, 2) against T = 8 everywhere, eval and train step, time and memory.

    uv run --group bench python benchmarks/shrink.py

The shrunk network should need average_timestep / 8 of the plain one's time. Contenders run interleaved, in an order that changes
from round to round; the table shows medians and medians of per-round ratios. "Peak" is the largest sum of live tensors,
parameters aside, gradients included.
"""

import argparse
import platform
import random
import statistics
import time

import torch
from model import LiveTensors, calibrate
from torch import Tensor, nn

import spikeformers
from spikeformers.transforms import average_timestep, shrink


def evaluate(model: nn.Module, frames: Tensor, labels: Tensor) -> None:
    model.eval()
    with torch.no_grad():
        model(frames)


def train_step(model: nn.Module, frames: Tensor, labels: Tensor) -> None:
    model.train().zero_grad(set_to_none=True)
    logits = model(frames)
    logits, early = logits if isinstance(logits, tuple) else (logits, [])
    sum(nn.functional.cross_entropy(answer, labels) for answer in [logits, *early]).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="spiking_vgg9")
    parser.add_argument("--schedule", type=int, nargs="+", default=[8, 6, 4, 2])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    steps = options.schedule[0]
    plain = spikeformers.create_model(options.model, time_steps=steps)
    frames = (torch.rand(steps, options.batch, *plain.pretrained_cfg["input_size"]) < 0.1).float()
    labels = torch.randint(plain.num_classes, (options.batch,))
    calibrate(plain, frames)
    plain.to(memory_format=torch.channels_last)
    shrunk = shrink(plain, options.schedule)
    plain_form = shrink(plain, options.schedule)
    for layer in plain_form.shrinks.values():
        layer.forward = lambda x, made=True, frames=layer.forward: frames(x)
    contenders = {
        f"plain, T = {steps}": plain,
        f"shrunk, {tuple(options.schedule)}": shrunk,
        "  without computing once": plain_form,
        "  with early classifiers": shrink(plain, options.schedule, early_classifiers=True),
    }
    reference = next(iter(contenders))
    print(
        f"{options.model}, batch {options.batch}, frames {'x'.join(map(str, frames.shape[2:]))}, float32 on {platform.machine()}, "
        f"{torch.get_num_threads()} threads; torch {torch.__version__}; {options.rounds} rounds\n"
        f"average time step {average_timestep(shrunk):g} of {steps}: {average_timestep(shrunk) / steps:.3f}"
    )
    for work in (evaluate, train_step):
        times = {name: [] for name in contenders}
        for model in contenders.values():
            work(model, frames, labels)
        for _ in range(options.rounds):
            for name in random.sample(list(contenders), len(contenders)):
                start = time.perf_counter()
                work(contenders[name], frames, labels)
                times[name].append(time.perf_counter() - start)
        print(f"\n{work.__name__:28}{'median ms':>12}{'of plain':>10}{'peak MiB':>12}{'of plain':>10}")
        peaks = {}
        for name, model in contenders.items():
            with LiveTensors() as live:
                work(model, frames, labels)
            peaks[name] = live.peak / 2**20
            ratio = statistics.median(a / b for a, b in zip(times[name], times[reference], strict=True))
            milliseconds = statistics.median(times[name]) * 1e3
            print(
                f"{name:28}{milliseconds:12.1f}{ratio:10.3f}{peaks[name]:12.1f}{peaks[name] / peaks[reference]:10.3f}"
            )


if __name__ == "__main__":
    main()
