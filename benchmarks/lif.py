"""The LIF kernel against its peers: forward, and forward with backward, of one layer.

    uv run --group bench python benchmarks/lif.py

Every contender computes the same neurons: tau 2, threshold 1, hard reset, sigmoid surrogate with alpha 4. One round runs each
contender once, in an order that changes from round to round; the table shows medians over the rounds and the median of the
per-round ratios to SpikingJelly and to the bandwidth yardstick, `clone()`.
"""

import argparse
import platform
import random
import statistics
import time

import snntorch
import torch
from snntorch import surrogate as snntorch_surrogate
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor

from spikeformers.kernels.lif import Dynamics, lif, reference, status

DYNAMICS = Dynamics()


def spikingjelly_lif():
    """SpikingJelly's torch neuron in multi-step mode."""
    node = neuron.LIFNode(
        tau=2.0,
        v_threshold=1.0,
        v_reset=0.0,
        surrogate_function=surrogate.Sigmoid(4.0),
        detach_reset=True,
        step_mode="m",
    )

    def run(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x)

    return run


def snntorch_lif():
    """snnTorch's Leaky neuron, stepped over T; its membrane follows beta * mem + x, so it gets x / tau."""
    node = snntorch.Leaky(
        beta=0.5, threshold=1.0, reset_mechanism="zero", spike_grad=snntorch_surrogate.sigmoid(slope=4)
    )

    def run(x: Tensor) -> Tensor:
        v, spikes = node.init_leaky(), []
        for step in x / 2.0:
            s, v = node(step, v)
            spikes.append(s)
        return torch.stack(spikes)

    return run


def compiled_reference():
    """Our plain PyTorch autograd.Function under torch.compile."""
    return torch.compile(lambda x: reference.lif(x, None, DYNAMICS)[0], fullgraph=True)


CONTENDERS = {
    "clone()": torch.clone,
    "spikeformers": lambda x: lif(x, return_v=False)[0],
    "spikeformers, with v": lambda x: lif(x)[0],
    "reference, compiled": compiled_reference(),
    "reference": lambda x: reference.lif(x, None, DYNAMICS)[0],
    "SpikingJelly": spikingjelly_lif(),
    "snnTorch": snntorch_lif(),
}


def forward(run, x: Tensor, grad: Tensor) -> None:
    with torch.no_grad():
        run(x)


def forward_backward(run, x: Tensor, grad: Tensor) -> None:
    run(x.detach().requires_grad_()).backward(grad)


def seconds(pass_, run, x: Tensor, grad: Tensor) -> float:
    start = time.perf_counter()
    pass_(run, x, grad)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs="+", default=[4, 8, 256, 28, 28], help="[T, ...]")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()

    torch.manual_seed(0)
    random.seed(0)
    x = 2 * torch.randn(options.shape, device=options.device, dtype=getattr(torch, options.dtype))
    grad = torch.randn_like(x)
    live = ", ".join(name for name, runs, _ in status() if runs)
    where = torch.cuda.get_device_name() if x.is_cuda else f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(
        f"{options.shape} {options.dtype} on {where}; torch {torch.__version__}; live: {live}; {options.rounds} rounds"
    )
    want = CONTENDERS["reference"](x)
    equal = {name: bool((run(x) == want).all()) for name, run in CONTENDERS.items() if name != "clone()"}
    print(
        "spikes bit-equal to the reference:",
        ", ".join(f"{name} {'yes' if same else 'NO'}" for name, same in equal.items()),
    )

    for pass_ in (forward, forward_backward):
        times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for run in CONTENDERS.values():
            seconds(pass_, run, x, grad)
        for _ in range(options.rounds):
            for name, run in random.sample(list(CONTENDERS.items()), len(CONTENDERS)):
                times[name].append(seconds(pass_, run, x, grad))
        print(
            f"\n{pass_.__name__.replace('_', ' + '):24}{'median ms':>10}{'of clone':>10}{'speed-up over SpikingJelly':>28}"
        )
        for name, own in times.items():
            of_clone = statistics.median(a / b for a, b in zip(own, times["clone()"], strict=True))
            over_peer = statistics.median(b / a for a, b in zip(own, times["SpikingJelly"], strict=True))
            print(f"{name:24}{1e3 * statistics.median(own):10.2f}{of_clone:10.2f}{over_peer:28.2f}")


if __name__ == "__main__":
    main()
