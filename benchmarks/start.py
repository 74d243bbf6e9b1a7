"""Seconds and memory until the command or the library is there: interleaved, medians of processes of their own.

uv run benchmarks/start.py [--rounds 7] [--errors]
"""

import argparse
import resource
import statistics
import subprocess
import sys
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("spikeformers"))
WAYS = {
    "spikeformers --help": [COMMAND, "--help"],
    "spikeformers --version": [COMMAND, "--version"],
    "spikeformers train --help": [COMMAND, "train", "--help"],
    "import torch, timm": [sys.executable, "-c", "import torch, timm"],
    "import spikeformers": [sys.executable, "-c", "import spikeformers"],
    "import spikeformers and use a model's name": [
        sys.executable,
        "-c",
        "import spikeformers; spikeformers.create_model",
    ],
    "spikeformers list": [COMMAND, "list"],
    "spikeformers doctor": [COMMAND, "doctor"],
}
RECIPES = Path(__file__).parents[1] / "src" / "spikeformers" / "recipes"
ERRORS = {
    "an unknown verb": ["traim"],
    "train: an unknown option": ["train", "--unknown"],
    "train: an unknown option beside a recipe": ["train", "--config", str(RECIPES / "digits.yaml"), "--epochs", "3"],
    "train: an option of other data": ["train", "--config", str(RECIPES / "nmnist.yaml"), "--data.mean", "[0.5]"],
    "train: a missing recipe": ["train", "--config", "none.yaml"],
    "train: an unknown data set": ["train", "--data.name", "digit"],
    "eval: no checkpoint": ["eval"],
    "eval: a missing checkpoint": ["eval", "none.ckpt"],
    "eval: an unknown option": ["eval", "none.ckpt", "--data.boot", "x"],
    "profile: no checkpoint": ["profile"],
    "profile: a missing checkpoint": ["profile", "none.ckpt"],
    "profile: an unknown option": ["profile", "none.ckpt", "--sampels", "1"],
    "compare: an option of profile": ["compare", "a.ckpt", "--early_exit", "true"],
    "convert: no model": ["convert"],
    "convert: an unknown option": ["convert", "timm:resnet18", "--unknown"],
    "predict: --top 0": ["predict", "none.ckpt", "x.png", "--top", "0"],
    "predict: a missing checkpoint": ["predict", "none.ckpt", "x.png"],
    "predict: no images": ["predict", "none.ckpt"],
    "list: an unknown option": ["list", "--unknown"],
    "import: a missing checkpoint": ["import", "none.pth", "out.safetensors"],
    "import: half an option": ["import", "none.pth", "out.safetensors", "--time_steps"],
    "shard: no folder": ["shard"],
    "doctor: an unknown option": ["doctor", "--unknown"],
    "completion: an unknown shell": ["completion", "csh"],
    "help: an unknown verb": ["help", "traim"],
}
"""Mistakes that are known without torch: each is to be answered within half a second."""


def cpu_seconds(command: list[str]) -> float:
    """CPU time of a process, which other programs on the machine disturb least."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--errors", action="store_true", help="only mistakes on the command line")
    options = parser.parse_args()
    ways = {} if options.errors else WAYS
    ways |= {name: [COMMAND, *words] for name, words in ERRORS.items()} | {
        "import torch, timm": WAYS["import torch, timm"]
    }
    times = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, command in ways.items():
            times[name].append(cpu_seconds(command))
    base = statistics.median(times["import torch, timm"])
    print(f"{'':45}{'CPU s':>8}{'/ import torch, timm':>24}")
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:45}{median:8.2f}{median / base:24.2f}")


if __name__ == "__main__":
    main()
