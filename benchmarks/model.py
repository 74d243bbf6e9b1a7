"""Meta-SpikeFormer-15M at 224 pixels, T = 4, batch 1: our neurons against SpikingJelly's in the same network.

    uv run --group bench python benchmarks/model.py

The peer is a copy of the same model in which every neuron is SpikingJelly's torch LIFNode in multi-step mode. Contenders run
interleaved, in an order that changes from round to round; the table shows medians and the median per-round ratio. Spikes of
all layers are compared on the same image. "Kept" is what stays alive between forward and backward; "peak" is the largest sum of
live tensors during a train step, parameters aside, gradients included.
"""

import argparse
import copy
import platform
import random
import statistics
import time
from collections.abc import Callable

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import spikeformers
from spikeformers.neurons import Neuron


def lif_node(ours: Neuron) -> neuron.LIFNode:
    """SpikingJelly's module with the constants of one of ours; of this very type, since its PrecisionConfig passes subclasses
    over. Its state has to be reset before every call of a model."""
    return neuron.LIFNode(
        tau=ours.tau,
        v_threshold=ours.v_threshold,
        v_reset=0.0,
        surrogate_function=surrogate.Sigmoid(ours.alpha),
        detach_reset=True,
        step_mode="m",
    )


def with_neurons(model: nn.Module, make: Callable[[Neuron], nn.Module]) -> nn.Module:
    """A copy of the model with make(neuron) in place of every neuron."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Neuron):
                setattr(parent, name, make(child))
    return model


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors made inside that are still alive, and their largest sum."""

    def __init__(self):
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, self.bytes())
        return out

    def bytes(self) -> int:
        self.storages = {key: (ref, size) for key, (ref, size) in self.storages.items() if not ref.expired()}
        return sum(size for _, size in self.storages.values())


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Sets the running statistics of every BN to those of `images`, so that neurons fire in eval mode too."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def evaluate(model: nn.Module, image: Tensor, label: Tensor) -> None:
    with torch.no_grad():
        functional.reset_net(model)
        model(image)


def train_step(model: nn.Module, image: Tensor, label: Tensor) -> None:
    functional.reset_net(model)
    model.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(image), label).backward()


def memory(model: nn.Module, image: Tensor, label: Tensor) -> tuple[float, float]:
    """(bytes kept for backward, peak) in MiB of one train step."""
    functional.reset_net(model)
    model.zero_grad(set_to_none=True)
    with LiveTensors() as live:
        loss = nn.functional.cross_entropy(model(image), label)
        kept = live.bytes()
        loss.backward()
    return kept / 2**20, live.peak / 2**20


def spikes_of(model: nn.Module, image: Tensor) -> list[Tensor]:
    """The output of every neuron, in the order of their names."""
    outputs: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda module, args, out, name=name: outputs.__setitem__(name, out))
        for name, module in model.named_modules()
        if isinstance(module, (Neuron, neuron.LIFNode))
    ]
    with torch.no_grad():
        functional.reset_net(model)
        model(image)
    for hook in hooks:
        hook.remove()
    return [outputs[name] for name in sorted(outputs)]


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
    image = torch.randn(options.batch, 3, options.size, options.size)
    label = torch.randint(1000, (options.batch,))
    ours = spikeformers.create_model(options.model, time_steps=options.time_steps)
    calibrate(ours, torch.randn(4, 3, options.size // 2, options.size // 2))
    channels_last = copy.deepcopy(ours).to(memory_format=torch.channels_last)
    contenders = {
        "spikeformers": ours,
        "SpikingJelly": with_neurons(ours, lif_node),
        "spikeformers, channels_last": channels_last,
        "SpikingJelly, channels_last": with_neurons(channels_last, lif_node),
    }
    images = {name: image.to(memory_format=torch.channels_last) if "," in name else image for name in contenders}
    print(
        f"{options.model} at {options.size}, T = {options.time_steps}, batch {options.batch}, float32 on {platform.machine()}, "
        f"{torch.get_num_threads()} threads; torch {torch.__version__}; {options.rounds} rounds"
    )
    for mode in ("eval", "train"):
        for suffix in ("", ", channels_last"):
            pair = [contenders[name + suffix].train(mode == "train") for name in ("spikeformers", "SpikingJelly")]
            layers = list(zip(*(spikes_of(model, images["spikeformers" + suffix]) for model in pair), strict=True))
            equal = sum(torch.equal(a, b) for a, b in layers)
            rate = statistics.mean(a.mean().item() for a, _ in layers)
            print(f"{mode}{suffix}: spikes bit-equal in {equal} of {len(layers)} layers, mean firing rate {rate:.3f}")

    for pass_ in (evaluate, train_step):
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for name, model in contenders.items():
            model.train(pass_ is train_step)
            pass_(model, images[name], label)
        for _ in range(options.rounds):
            for name in random.sample(list(contenders), len(contenders)):
                start = time.perf_counter()
                pass_(contenders[name], images[name], label)
                times[name].append(time.perf_counter() - start)
        print(f"\n{pass_.__name__.replace('_', ' '):30}{'median ms':>10}{'speed-up over SpikingJelly':>28}")
        for name, own in times.items():
            ratio = statistics.median(b / a for a, b in zip(own, times["SpikingJelly"], strict=True))
            print(f"{name:30}{1e3 * statistics.median(own):10.0f}{ratio:28.2f}")

    print(f"\n{'memory of a train step':30}{'kept MiB':>10}{'peak MiB':>10}{'kept, of SpikingJelly':>24}")
    used = {name: memory(model.train(), images[name], label) for name, model in contenders.items()}
    for name, (kept, peak) in used.items():
        print(f"{name:30}{kept:10.0f}{peak:10.0f}{kept / used['SpikingJelly'][0]:24.2f}")


if __name__ == "__main__":
    main()
