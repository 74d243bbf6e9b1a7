"""Seconds and memory until the command or the library is there: interleaved, medians of processes of their own.

uv run benchmarks/start.py [--rounds 7]
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
    "an unknown verb": [COMMAND, "traim"],
    "import torch, timm": [sys.executable, "-c", "import torch, timm"],
    "import spikeformers": [sys.executable, "-c", "import spikeformers"],
    "import spikeformers and use a model's name": [sys.executable, "-c", "import spikeformers; spikeformers.create_model"],
    "spikeformers list": [COMMAND, "list"],
    "spikeformers doctor": [COMMAND, "doctor"],
}


def cpu_seconds(command: list[str]) -> float:
    """CPU time of a process, which other programs on the machine disturb least."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    times = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, command in WAYS.items():
            times[name].append(cpu_seconds(command))
    base = statistics.median(times["import torch, timm"])
    print(f"{'':45}{'CPU s':>8}{'/ import torch, timm':>24}")
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:45}{median:8.2f}{median / base:24.2f}")


if __name__ == "__main__":
    main()
