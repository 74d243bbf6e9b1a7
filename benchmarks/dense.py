"""Mask R-CNN on Meta-SpikeFormer-15M at 512 pixels: spiking heads against the same backbone with torchvision's own heads.

    uv run --extra dense python benchmarks/dense.py

All detectors have copies of one backbone, whose batch statistics are those of the image shown, so that it fires, and the same settings;
thresholds are opened so that each has 1,000 regions and 100 detections to work on, whatever its untrained heads answer. Contenders
run interleaved, in an order that changes from round to round; the table shows medians and medians of per-round ratios.
"""

import argparse
import platform
import random
import statistics
import time

import torch
from model import calibrate

import spikeformers
from spikeformers.measure import emissions

OPEN = {"box_score_thresh": -1.0, "rpn_nms_thresh": 1.0, "box_nms_thresh": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="meta_spikeformer_15m")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--time_steps", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--regions", type=int, default=1000)
    options = parser.parse_args()

    torch.manual_seed(0)
    random.seed(0)
    images = [torch.rand(3, options.size, options.size)]
    print(
        f"Mask R-CNN, {options.model} at {options.size}, batch 1, float32 on {platform.machine()}, {torch.get_num_threads()} threads; "
        f"torch {torch.__version__}; {options.rounds} rounds"
    )
    for steps in options.time_steps:
        body = spikeformers.create_model(options.model, num_classes=0, time_steps=steps)
        calibrate(body, (images[0][None] - 0.45) / 0.225)
        kept = {"min_size": options.size, "max_size": options.size, "rpn_post_nms_top_n_test": options.regions, **OPEN}
        detectors = {
            "torchvision's heads": spikeformers.create_model("mask_rcnn", backbone=body, heads="float", **kept),
            "spiking heads": spikeformers.create_model("mask_rcnn", backbone=body, **kept),
            "spiking heads, readout='neck'": spikeformers.create_model(
                "mask_rcnn", backbone=body, readout="neck", **kept
            ),
        }
        for detector in detectors.values():
            detector.eval().to(memory_format=torch.channels_last)
        alone = detectors["torchvision's heads"].backbone
        shown = detectors["torchvision's heads"].transform(images)[0].tensors
        contenders = {"backbone alone": lambda maps=alone, x=shown: maps.maps(x)}
        contenders |= {name: lambda detector=detector: detector(images) for name, detector in detectors.items()}
        times: dict[str, list[float]] = {name: [] for name in contenders}
        with torch.no_grad():
            for name, detector in detectors.items():
                with emissions(detector) as tally:
                    found = detector(images)[0]
                heads = [rate for place, rate in tally().firing_rates.items() if ".body." not in place]
                rate = f", heads fire at {statistics.mean(heads):.3f}" if heads else ""
                print(f"T = {steps}, {name}: {len(found['boxes'])} detections{rate}")
            for _ in range(options.rounds):
                for label in random.sample(list(contenders), len(contenders)):
                    start = time.perf_counter()
                    contenders[label]()
                    times[label].append(time.perf_counter() - start)
        base = times["torchvision's heads"]
        print(f"\n{f'T = {steps}':34}{'median ms':>10}{'over torchvision heads':>26}")
        for label, own in times.items():
            ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
            print(f"{label:34}{1e3 * statistics.median(own):10.0f}{ratio:26.2f}")
        print()


if __name__ == "__main__":
    main()
