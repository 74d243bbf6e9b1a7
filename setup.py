"""Builds the native CPU kernels: plain C, seconds, no torch headers. Without a compiler the package installs all the same.

Each source is compiled once per instruction set and the loader picks one at run time. OpenMP is compiled in but not linked:
its symbols resolve to the runtime that torch has already loaded, so that both share one pool of threads.
"""

import platform
import sys
from pathlib import Path

from setuptools import Extension, setup

EXACT = ["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
X86_LEVELS = {"x86_64_v3": ["-march=x86-64-v3"], "x86_64_v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}


def native(operation: str) -> list[Extension]:
    """One shared library of `kernels/<operation>/native.c` for every instruction set worth having on this machine."""
    levels = {"baseline": []}
    if platform.machine() in ("x86_64", "AMD64"):
        levels |= X86_LEVELS
    if sys.platform == "darwin":
        openmp, linker = ["-Xpreprocessor", "-fopenmp"], ["-undefined", "dynamic_lookup"]
    else:
        openmp, linker = ["-fopenmp"], []
    return [
        Extension(
            f"spikeformers.kernels.{operation}._native_{level}",
            [f"src/spikeformers/kernels/{operation}/native.c"],
            depends=[str(path) for path in Path("src/spikeformers/kernels").glob("*/*.h")],
            extra_compile_args=EXACT + openmp + flags,
            extra_link_args=linker,
            optional=True,
        )
        for level, flags in levels.items()
    ]


setup(
    ext_modules=[extension for operation in ("lif", "spike_conv", "spike_attention") for extension in native(operation)]
)
