"""A training step of Spikingformer-CIFAR-4-384 at T = 4: our neurons against SpikingJelly's fastest in the same network.

    uv run --group bench python benchmarks/train_gpu.py --precision bf16 --channels-last

The peers are copies of the same model in which every neuron is SpikingJelly's. Version 2.0.0 has no `backend=` any more: on a GPU
it takes its own CUDA kernels where they were built, else Triton, else torch; what it took is printed. Its LIFNode starts from a
potential of the input's type and so leaves the fast kernels in bfloat16. Two more contenders do not: its function
`lif_multi_step`, started from float32, and, in bf16 on a GPU, its PrecisionConfig. Ratios are to the fastest of them.

Before anything is timed, each neuron of ours is compared in float32 with its counterparts on the same input: spikes must be
bit-equal, but for one in 10,000, and gradients close. A step is forward, cross-entropy, backward and AdamW on a fixed batch.
One round times `--steps` of each contender, in an order that changes from round to round; the table shows medians and the median
per-round ratio. On a GPU our step must not make the host wait: torch raises an error if it does. "Peak" is the most memory in
use during a step beyond parameters and optimiser, gradients included.
"""

import argparse
import copy
import platform
import random
import statistics
import time
from collections.abc import Callable

import torch
from model import LiveTensors, lif_node, with_neurons
from spikingjelly.activation_based import functional, surrogate
from spikingjelly.activation_based.precision import PrecisionConfig, prepare_model_for_precision
from torch import Tensor, nn

import spikeformers
from spikeformers.kernels.lif import status
from spikeformers.neurons import Neuron


class LIFFunction(nn.Module):
    """SpikingJelly's function with the constants of one of our neurons, from float32 potentials at rest."""

    def __init__(self, ours: Neuron):
        super().__init__()
        self.tau, self.v_threshold, self.surrogate = ours.tau, ours.v_threshold, surrogate.Sigmoid(ours.alpha)

    def forward(self, x: Tensor) -> Tensor:
        """[T, ...] -> spikes [T, ...]"""
        v = torch.zeros_like(x[0], dtype=torch.float32)
        return functional.lif_multi_step(x, v, self.tau, True, self.v_threshold, 0.0, self.surrogate, True)[0]


def peer(model: nn.Module, make: Callable[[Neuron], nn.Module]) -> nn.Module:
    """A copy of the model with make(neuron) in place of every neuron, as fast as it can be."""
    model = with_neurons(model, make)
    model.keep_compact_spikes = False  # works with our kernel only, and would cost the others time
    return model


class Contender:
    """A model with its optimiser; `step` is one training step."""

    def __init__(self, model: nn.Module, device: str, precision: torch.dtype, compiled: bool):
        self.eager, self.device, self.precision = model.train(), device, precision
        self.model = torch.compile(model) if compiled else model
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)  # slow, so that firing rates stay

    def step(self, images: Tensor, labels: Tensor) -> None:
        functional.reset_net(self.eager)
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device, self.precision, enabled=self.precision != torch.float32):
            loss = nn.functional.cross_entropy(self.model(images), labels)
        loss.backward()
        self.optimiser.step()


def compare(ours: nn.Module, theirs: nn.Module, images: Tensor) -> str:
    """How two models agree in float32, in words: neurons on the same inputs, and the logits of the whole.

    Raises:
        SystemExit: more than one spike in 10,000 of a neuron differs, or its gradients by more than rounding.
    """
    neurons = {name: module for name, module in ours.named_modules() if isinstance(module, Neuron)}
    counterparts = dict(theirs.named_modules())
    inputs: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(lambda module, args, name=name: inputs.__setitem__(name, args[0]))
        for name, module in neurons.items()
    ]
    functional.reset_net(theirs)
    with torch.no_grad():
        apart = (ours(images) - theirs(images)).abs().max().item()
    for hook in hooks:
        hook.remove()
    functional.reset_net(theirs)
    rates, equal = [], 0
    for name, current in inputs.items():
        mine, other = (current.detach().clone().requires_grad_() for _ in range(2))
        spikes, other_spikes = neurons[name](mine), counterparts[name](other)
        grad = torch.randn_like(spikes)
        spikes.backward(grad)
        other_spikes.backward(grad)
        wrong, error = (spikes != other_spikes).sum().item(), (mine.grad - other.grad).abs().max().item()
        if wrong > 1e-4 * spikes.numel() or not wrong and error > 1e-4:
            raise SystemExit(
                f"{name}: {wrong} of {spikes.numel()} spikes differ on the same input, gradients by {error:.1e}"
            )
        equal += not wrong
        rates.append(spikes.mean().item())
    functional.reset_net(theirs)
    return (
        f"spikes bit-equal on the same input in {equal} of {len(neurons)} layers, mean firing rate "
        f"{statistics.mean(rates):.3f}; logits differ by {apart:.1e}"
    )


def waits(contender: Contender, images: Tensor, labels: Tensor) -> str | None:
    """What makes the host wait for the GPU in a step, if anything does."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        contender.step(images, labels)
    except RuntimeError as error:
        return str(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


def peak(contender: Contender, images: Tensor, labels: Tensor) -> float:
    """MiB in use at most during a step beyond what stays."""
    contender.optimiser.zero_grad(set_to_none=True)
    if images.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        contender.step(images, labels)
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with LiveTensors() as live:
        contender.step(images, labels)
    return live.peak / 2**20


def seconds(contender: Contender, images: Tensor, labels: Tensor, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        contender.step(images, labels)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="spikingformer_cifar_4_384")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--time_steps", type=int, default=4)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: under autocast")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true", help="all contenders under torch.compile")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=None, help="training steps per round; 10 on a GPU, 1 on a CPU")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    precision = torch.bfloat16 if options.precision == "bf16" else torch.float32
    steps = options.steps or (10 if on_gpu else 1)

    torch.manual_seed(0)
    random.seed(0)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    images = torch.randn(options.batch, 3, options.size, options.size).to(options.device, memory_format=layout)
    ours = spikeformers.create_model(options.model, time_steps=options.time_steps)
    labels = torch.randint(ours.num_classes, (options.batch,)).to(options.device)
    ours = ours.to(options.device, memory_format=layout).train()
    models = {
        "spikeformers": ours,
        "SpikingJelly, LIFNode": peer(ours, lif_node),
        "SpikingJelly, lif_multi_step": peer(ours, LIFFunction),
    }
    if not options.compile:  # which keeps spikes as it likes
        models["spikeformers, spikes kept whole"] = copy.deepcopy(ours)
        models["spikeformers, spikes kept whole"].keep_compact_spikes = False

    where = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()}, {torch.get_num_threads()} threads"
    switches = "".join(f", {name}" for name in ("channels_last", "compile") if getattr(options, name))
    execution = "compile" if options.compile else "eager"
    theirs = functional.neuron_implementation("lif", torch.device(options.device), execution=execution)
    print(
        f"{options.model} at {options.size}, T = {options.time_steps}, batch {options.batch}, {options.precision}{switches} on "
        f"{where}; torch {torch.__version__}; {options.rounds} rounds of {steps} steps"
    )
    print(f"live in spikeformers: {', '.join(name for name, runs, _ in status() if runs)}; SpikingJelly took {theirs}")
    for name, model in models.items():
        if "SpikingJelly" in name:
            print(f"{name}: {compare(ours, model, images)}")
    if on_gpu and precision == torch.bfloat16:
        name = "SpikingJelly, PrecisionConfig"
        config = PrecisionConfig(mode="bf16", neuron_storage="bf16")
        models[name] = prepare_model_for_precision(peer(ours, lif_node), options.device, config).model
        print(f"{name}: keeps potentials in bfloat16, so its spikes may differ")

    torch.backends.cudnn.benchmark = True
    contenders = {name: Contender(model, options.device, precision, options.compile) for name, model in models.items()}
    for contender in contenders.values():
        seconds(contender, images, labels, 3 if on_gpu else 1)
    if on_gpu:
        for name, contender in contenders.items():
            reason = waits(contender, images, labels)
            print(f"{name}: {'no host synchronisation in the step' if reason is None else f'the host waits: {reason}'}")
            if name == "spikeformers" and reason is not None:
                raise SystemExit("our training step must not wait for the GPU")

    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name in random.sample(list(contenders), len(contenders)):
            times[name].append(seconds(contenders[name], images, labels, steps))
    peers = [name for name in contenders if "SpikingJelly" in name]
    fastest = min(peers, key=lambda name: statistics.median(times[name]))
    # compiled code reuses buffers unseen by LiveTensors
    peaks = {
        name: peak(contender, images, labels) for name, contender in contenders.items() if on_gpu or not options.compile
    }
    print(f"\n{'training step':34}{'ms':>10}{'images/s':>12}{'over ' + fastest:>36}{'peak MiB':>12}")
    for name, own in times.items():
        ratio = statistics.median(b / a for a, b in zip(own, times[fastest], strict=True))
        median = statistics.median(own) / steps
        memory = f"{peaks[name]:12.0f}" if name in peaks else f"{'-':>12}"
        print(f"{name:34}{1e3 * median:10.1f}{options.batch / median:12.1f}{ratio:36.2f}{memory}")


if __name__ == "__main__":
    main()
