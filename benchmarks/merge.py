"""Meta-SpikeFormer-15M at 224 pixels, T = 4, batch 1, in eval mode: merged against unmerged, both costs and memory formats.

    uv run --group bench python benchmarks/merge.py

"contiguous" and "channels_last" are the memory formats of the images and of the unmerged model's weights. `merge(cost="cpu")`
brings the weights into channels_last itself; "weights contiguous too" shows what it gains without that. Contenders run
interleaved, in an order that changes from round to round; the table shows medians and medians of per-round ratios. Before that,
the spikes of both merged models are compared with those of the unmerged one in float64.
"""

import argparse
import copy
import platform
import random
import statistics
import time

import torch
from model import calibrate, spikes_of

import spikeformers
from spikeformers.transforms import merge

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="meta_spikeformer_15m")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--time_steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()

    torch.manual_seed(0)
    random.seed(0)
    model = spikeformers.create_model(options.model, time_steps=options.time_steps)
    images = torch.randn(options.batch, model.in_chans, options.size, options.size)
    calibrate(model, torch.randn(4, model.in_chans, options.size // 2, options.size // 2))
    model.eval()
    print(
        f"{options.model} at {options.size}, T = {options.time_steps}, batch {options.batch}, float32 on {platform.machine()}, "
        f"{torch.get_num_threads()} threads; torch {torch.__version__}; {options.rounds} rounds"
    )

    exact, small = copy.deepcopy(model).double(), images[..., : options.size // 2, : options.size // 2].double()
    want = spikes_of(exact, small)
    for cost in ("cpu", "neuromorphic"):
        got = spikes_of(merge(exact, cost), small)
        equal = sum(torch.equal(a, b) for a, b in zip(want, got, strict=True))
        fire = sum(bool(spikes.any()) for spikes in want)
        print(f"float64, {cost}: spikes equal in {equal} of {len(want)} layers, of which {fire} fire")

    contenders = {}
    for name, memory_format in FORMATS.items():
        unmerged = copy.deepcopy(model).to(memory_format=memory_format)
        contenders[f"unmerged, {name}"] = unmerged, name
        contenders[f"cpu, {name}"] = merge(unmerged), name
        contenders[f"neuromorphic, {name}"] = merge(unmerged, "neuromorphic"), name
    kept = merge(model).to(memory_format=torch.contiguous_format)
    contenders["cpu, weights contiguous too"] = kept, "contiguous"
    inputs = {name: images.to(memory_format=memory_format) for name, memory_format in FORMATS.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.no_grad():
        for contender, name in contenders.values():
            contender(inputs[name])
        for _ in range(options.rounds):
            for label in random.sample(list(contenders), len(contenders)):
                contender, name = contenders[label]
                start = time.perf_counter()
                contender(inputs[name])
                times[label].append(time.perf_counter() - start)

    print(f"\n{'eval':34}{'median ms':>10}" + "".join(f"{'over unmerged, ' + name:>32}" for name in FORMATS))
    for label, own in times.items():
        ratios = [
            statistics.median(b / a for a, b in zip(own, times[f"unmerged, {name}"], strict=True)) for name in FORMATS
        ]
        print(f"{label:34}{1e3 * statistics.median(own):10.0f}" + "".join(f"{ratio:32.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
