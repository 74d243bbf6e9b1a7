"""Loading compiled kernels: each is built once per instruction set, see setup.py."""

import ctypes
import importlib.machinery
from pathlib import Path

import torch

_BUILDS = {"AVX512": ("x86_64_v4", "x86_64_v3", "baseline"), "AVX2": ("x86_64_v3", "baseline")}


def load_library(beside: str) -> tuple[ctypes.CDLL | None, str]:
    """The fastest build in the folder of `beside` that this processor runs, and one sentence about it; None and the reason."""
    reason = (
        "not built, so the slower reference runs in its place: no working C compiler was found when spikeformers was "
        "installed; install gcc or clang, then reinstall spikeformers"
    )
    for build in _BUILDS.get(torch.backends.cpu.get_cpu_capability(), ("baseline",)):
        path = Path(beside).with_name(f"_native_{build}{importlib.machinery.EXTENSION_SUFFIXES[0]}")
        if not path.exists():
            continue
        try:
            return ctypes.CDLL(str(path)), f"build {build}"
        except OSError as error:
            reason = (
                f"built but not loadable ({error}), so the slower reference runs in its place; reinstall spikeformers"
            )
    return None, reason
