"""`spikeformers doctor`."""

import importlib.metadata

from .._install import command_for
from ._parser import Call
from ._verb import Verb


def doctor(call: Call):
    """Show versions, devices, which kernels are live and which extras are missing."""
    import platform

    import torch
    from packaging.requirements import Requirement

    from ..kernels import lif, spike_attention, spike_conv

    version = importlib.metadata.version
    print(f"spikeformers {version('spikeformers')}, Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm")))
    print(f"devices: cpu with {torch.get_num_threads()} threads", end="")
    for index in range(torch.cuda.device_count()):
        print(f", cuda:{index} {torch.cuda.get_device_name(index)}", end="")
    print(", mps" if torch.backends.mps.is_available() else "")
    kernels = {"LIF": lif, "event-driven convolution": spike_conv, "event-driven attention": spike_attention}
    for title, kernel in kernels.items():
        print(f"{title} kernels:")
        for name, live, explanation in kernel.status():
            print(f"  {name:10} {'live  ' if live else 'absent'}  {explanation}")
    print("extras:")
    requirements = [Requirement(text) for text in importlib.metadata.requires("spikeformers") or []]
    for extra in importlib.metadata.metadata("spikeformers").get_all("Provides-Extra") or []:
        needs = [r.name for r in requirements if r.marker and r.marker.evaluate({"extra": extra})]
        missing = [name for name in needs if not _installed(name)]
        print(f"  {extra:10} " + (f"absent  {command_for(extra)}" if missing else "present"))


def _installed(distribution):
    try:
        return bool(importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return False


DOCTOR = Verb("doctor", doctor)
