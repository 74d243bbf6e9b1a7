"""Event-driven inference on a CPU against every dense way to run the same network, and where its time goes.

    uv run --group bench python benchmarks/inference.py --checkpoint runs/cifar10/best.safetensors --accuracy 1000

Contenders see the same input, channels last as are all their weights: SpikingJelly's LIFNode in the same network (reset before every
call); the network in eval mode; merged; merged under torch.compile; merged in ONNX Runtime, its neurons written out as operations on
every time step; and `event_driven` with weights in float32, bfloat16 and int8, calibrated on other images of the same batch size.
The GEMM bound is what the merged network's multiply-adds would take at the speed of torch.mm on 2048 x 2048 matrices, measured in the
same rounds. They run interleaved, in an order that changes from round to round; the table shows medians and medians of per-round
ratios. "Best dense" is the fastest of our own three.

Memory is measured in a fresh process for each contender: "held" is how much more memory is resident after two calls than before
them, plans, arenas and a compiler's own memory included; "peak" is how much more a third call needs for a while. Weights, which are
there before the first call, are in neither. Deviation is that of the logits from the merged network's, relative to its largest one; an
untrained network is chaotic, so that rounded weights change its logits altogether.

At the start, all spikes in float64 must be those of the merged network. Without a checkpoint the network has random weights and batch
statistics of random images: its densities are not those of a trained network.
"""

import argparse
import copy
import ctypes
import gc
import inspect
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnxruntime
import torch
from model import calibrate, lif_node, spikes_of, with_neurons
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import spikeformers
from spikeformers.data import TestSet
from spikeformers.data.loading import collate
from spikeformers.evaluation import load_trained
from spikeformers.kernels import spike_conv
from spikeformers.kernels.lif import Dynamics, lif
from spikeformers.kernels.lif.reference import _fire
from spikeformers.neurons import LIF, Neuron
from spikeformers.transforms.event_driven import EventDriven
from spikeformers.transforms.event_driven.calibration import Calibration
from spikeformers.transforms.event_driven.plan import DrivenLayer, MapStep

GEMM = 2048  # rows and columns of the matrices whose product shows how fast the machine is
AT_ONCE = 4  # images in a batch where accuracy is measured
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
REPEATS = 5  # of a single layer in each round, as some take a tenth of a millisecond
PRECISIONS = ("float32", "bfloat16", "int8")
PARTS = {
    "_attention": "attention on bits",
    "_pool": "pooling of bits",
    "_mean_pool": "pooling of bits",
    "_sum_of_spikes": "sums of spikes",
    "_numbers": "bits to numbers",
}


@dataclass
class Subject:
    """The network, what it is shown, and where both come from.

    Attributes:
        model: in eval mode, its weights channels last.
        shown: images [B, C, H, W] or sequences [T, B, C, H, W], twice as many as the largest batch.
        samples: labelled test images, or None.
        words: a line about all this.
    """

    model: nn.Module
    shown: Tensor
    samples: TestSet | None
    words: str

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Other images for the calibration, and those to be timed, channels last."""
        half = self.shown.shape[-4] // 2
        return tuple(channels_last(self.shown.narrow(-4, start, size)) for start in (half, 0))


def channels_last(x: Tensor) -> Tensor:
    """Images or sequences with the channels of a pixel next to each other in memory."""
    if x.ndim == 5:
        return channels_last(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return x.contiguous(memory_format=torch.channels_last)


def spread(samples: TestSet, number: int) -> list[int]:
    """Indices of so many samples, evenly spread since they lie class by class, in random order."""
    places = [index * len(samples) // number for index in range(number)]
    return random.Random(0).sample(places, number)


def subject(options: argparse.Namespace) -> Subject:
    torch.manual_seed(0)
    number = 2 * max(options.batch)
    samples, trained = None, None
    if options.checkpoint:
        trained = load_trained(options.checkpoint)
        model, words = trained.model, f"{options.checkpoint}, trained"
    else:
        model = spikeformers.create_model(options.model, time_steps=options.time_steps)
        words = f"{options.model} with random weights: densities are not those of a trained network"
    if trained and trained.data and options.data != "none":
        changes = {"root": options.data, "img_size": options.img_size}
        data = replace(trained.data, **{key: value for key, value in changes.items() if value is not None})
        samples = TestSet(data)
        shown, _ = collate([samples[index] for index in spread(samples, number)])
        words += f", test images of {data.name}"
    else:
        channels, height, width = model.pretrained_cfg["input_size"]
        height, width = (options.img_size,) * 2 if options.img_size else (height, width)
        shown = torch.randn(number, model.in_chans, height, width)
        if model.in_chans == 2:  # frames of an event camera
            shown = torch.poisson(torch.full((model.time_steps, number, 2, height, width), 0.2))
        words += ", random images"
    if not options.checkpoint:
        calibrate(model, shown.narrow(-4, 0, min(4, number)))
    return Subject(model.eval().to(memory_format=torch.channels_last), shown, samples, words)


# The contenders: each function makes the network and returns what computes the logits of x.


def their_neuron(ours: Neuron) -> nn.Module:
    """SpikingJelly's module with the constants of one of ours, its leak of the input too."""
    theirs = lif_node(ours)
    theirs.decay_input = ours.decay_input
    return theirs


def spikingjelly(model: nn.Module, calibration: Tensor, x: Tensor) -> Callable[[], Tensor]:
    peer = with_neurons(model, their_neuron)

    def call() -> Tensor:
        functional.reset_net(peer)
        return peer(x)

    return call


def plain(model: nn.Module, calibration: Tensor, x: Tensor) -> Callable[[], Tensor]:
    return lambda: model(x)


def merged(model: nn.Module, calibration: Tensor, x: Tensor) -> Callable[[], Tensor]:
    model = spikeformers.merge(model, "cpu")
    return lambda: model(x)


def compiled(model: nn.Module, calibration: Tensor, x: Tensor) -> Callable[[], Tensor]:
    torch._dynamo.reset()
    model = torch.compile(spikeformers.merge(model, "cpu"))
    return lambda: model(x)


class PlainNeuron(nn.Module):
    """One of our neurons as operations that any runtime knows, for every time step anew."""

    def __init__(self, ours: Neuron):
        super().__init__()
        self.ours = ours

    def forward(self, x: Tensor) -> Tensor:
        """[T, ...] -> spikes [T, ...], from rest."""
        dynamics = self.ours.dynamics
        v, spikes = x.new_zeros(()), []
        for now in x.unbind():
            fires, v = _fire(dynamics.equation.charge(now, v, dynamics.tau), dynamics.v_threshold, dynamics.soft_reset)
            spikes.append(fires.to(x.dtype))
        return torch.stack(spikes)


def save_onnx(model: nn.Module, x: Tensor, path: Path) -> None:
    """Writes the merged network for inputs of x's shape."""
    network = with_neurons(spikeformers.merge(model, "cpu"), PlainNeuron)
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(network, (x,), path, dynamo=True, verbose=False)


def load_onnx(path: Path, x: Tensor) -> Callable[[], Tensor]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.contiguous().numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def onnx_runtime(model: nn.Module, calibration: Tensor, x: Tensor) -> Callable[[], Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        save_onnx(model, x, path)
        return load_onnx(path, x)


class Driven:
    """The event-driven network as a contender."""

    def __init__(self, network: EventDriven, x: Tensor):
        self.network, self.x = network, x

    def __call__(self) -> Tensor:
        return self.network(self.x)


def driven(precision: str) -> Callable[[nn.Module, Tensor, Tensor], Driven]:
    return lambda model, calibration, x: Driven(spikeformers.event_driven(model, calibration, precision=precision), x)


CONTENDERS = {
    "SpikingJelly": spikingjelly,
    "eval": plain,
    "merged": merged,
    "merged, torch.compile": compiled,
    "merged, ONNX Runtime": onnx_runtime,
    **{f"event-driven, {precision}": driven(precision) for precision in PRECISIONS},
}
OURS_DENSE = ("eval", "merged", "merged, torch.compile")
BOUND = "dense GEMM bound"


def contenders_for(model: nn.Module) -> dict[str, Callable]:
    """Those that have this network's neurons."""
    neurons = [module for module in model.modules() if isinstance(module, Neuron)]
    theirs = all(type(neuron) is LIF and neuron.reset == "hard" for neuron in neurons)
    return {name: make for name, make in CONTENDERS.items() if theirs or name != "SpikingJelly"}


# Time and memory


def interleaved(calls: dict[str, Callable[[], object]], rounds: int, repeats: int = 1) -> dict[str, list[float]]:
    """Milliseconds of each call in every round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            start = time.perf_counter()
            for _ in range(repeats):
                calls[name]()
            times[name].append(1e3 * (time.perf_counter() - start) / repeats)
    return times


def ratio(over: list[float], own: list[float]) -> float:
    """How many times faster, as the median over rounds."""
    return statistics.median(a / b for a, b in zip(over, own, strict=True))


def show(heads: Sequence[str], rows: Sequence[Sequence]) -> None:
    """A table; numbers of milliseconds and the like with three digits."""
    cells = [[cell if isinstance(cell, str) else "" if cell is None else digits(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for row in (heads, *cells):
        print("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]))


def digits(value: float) -> str:
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.3g}"


def multiply_adds(model: nn.Module, x: Tensor) -> int:
    """Of all convolutions, linear layers and products in attention of the merged network."""
    network = spikeformers.merge(model, "cpu")
    with FlopCounterMode(display=False) as counter:
        network(x)
    return counter.get_total_flops() // 2


def memory_of(name: str, batch: int, threads: int) -> tuple[float, float]:
    """MiB held after two calls, and the peak of a third, in a process of its own; see `alone`."""
    own = [sys.executable, __file__, *sys.argv[1:], "--alone", name, str(batch), str(threads)]
    answer = subprocess.run(own, stdout=subprocess.PIPE, text=True, check=True).stdout
    return tuple(json.loads(answer.splitlines()[-1]))


def alone(name: str, tested: Subject, batch: int) -> None:
    """Prints [MiB held, MiB at the peak] of this contender as JSON."""

    def resident(key: str) -> float:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines[key].split()[0]) / 1024

    def tidy() -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)

    call = CONTENDERS[name](tested.model, *tested.batch(batch))
    tidy()
    before = resident("VmRSS")
    for _ in range(2):
        call()
    tidy()
    held = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    call()
    print(json.dumps([held - before, resident("VmHWM") - held]))


def compare(tested: Subject, batch: int, threads: int, rounds: int) -> dict[str, Callable[[], Tensor]]:
    """Prints the table of all contenders, and returns them."""
    calibration, x = tested.batch(batch)
    calls = {name: make(tested.model, calibration, x) for name, make in contenders_for(tested.model).items()}
    logits = {name: call() for name, call in calls.items()}
    for call in calls.values():
        call()
    matrix, macs = torch.rand(GEMM, GEMM), multiply_adds(tested.model, x)
    times = interleaved({**calls, BOUND: lambda: matrix @ matrix}, rounds)
    times[BOUND] = [macs / GEMM**3 * spent for spent in times[BOUND]]
    best = min(OURS_DENSE, key=lambda name: statistics.median(times[name]))
    rows = []
    for name, own in times.items():
        row = [name, statistics.median(own)]
        row += [ratio(times[over], own) if over in times else None for over in ("SpikingJelly", best, BOUND)]
        if name in calls:
            want = logits["merged"]
            row += [((logits[name] - want).abs().max() / want.abs().max()).item()]
            row += memory_of(name, batch, threads)
        rows.append([*row, *[None] * (8 - len(row)), None])
        if isinstance(calls.get(name), Driven):
            rows[-1][-1] = statistics.mean(layer.density for layer in calls[name].network.layers())
    print(f"\nbatch {batch}, {threads} threads; {macs / 1e9:.2f} G multiply-adds; best dense: {best}\n")
    heads = ("", "ms", "over SpikingJelly", "over best dense", "over GEMM bound", "deviation", "held MiB", "peak MiB")
    show([*heads, "mean density"], rows)
    return calls


# Where the time goes


def kind_of(step: Callable) -> str:
    """The kind of a plan's step: a layer's operation, or what else it does."""
    if isinstance(step, DrivenLayer):
        return step.operation
    if isinstance(step, MapStep):
        return "sums and neurons"
    method = step.__qualname__.split(".")[1]
    if method == "_generic":
        return "left to torch: " + inspect.getclosurevars(step).nonlocals["target"].__name__.split(".")[0]
    return PARTS[method]


def where_it_loses(network: EventDriven, x: Tensor, rounds: int) -> None:
    """Prints the time of all steps by kind: as they ran, and of layers both ways."""
    network(x)
    plan = network._last
    reports = dict(zip(map(id, plan.layers), network.layers(), strict=True))
    as_run, ways = defaultdict(list), {"event": defaultdict(list), "dense": defaultdict(list)}
    for _ in range(rounds):
        env = [x, *[None] * (plan.slots - 1)]
        for index, step in enumerate(plan.steps):
            start = time.perf_counter()
            step(env)
            as_run[index].append(1e3 * (time.perf_counter() - start))
        for index, step in enumerate(plan.steps):
            for way in random.sample(list(ways), 2) if isinstance(step, DrivenLayer) else ():
                start = time.perf_counter()
                getattr(step, way)(env)
                ways[way][index].append(1e3 * (time.perf_counter() - start))
    whole = sum(map(statistics.median, as_run.values()))
    kinds = defaultdict(list)
    for index, step in enumerate(plan.steps):
        kinds[kind_of(step)].append(index)
    rows, slow = [], []
    for kind, members in sorted(kinds.items(), key=lambda item: not isinstance(plan.steps[item[1][0]], DrivenLayer)):
        own = sum(statistics.median(as_run[index]) for index in members)
        row = [kind, len(members), own, f"{own / whole:.0%}"]
        if isinstance(plan.steps[members[0]], DrivenLayer):
            of = [reports[id(plan.steps[index])] for index in members]
            event, dense = ([statistics.median(ways[way][index]) for index in members] for way in ("event", "dense"))
            row += [statistics.mean(report.density for report in of), sum(r.way == "event-driven" for r in of)]
            row += [sum(event), sum(dense), sum(a > b for a, b in zip(event, dense, strict=True))]
            slow += [(a / b, report, a, b) for a, b, report in zip(event, dense, of, strict=True) if a > b]
        rows.append([*row, *[None] * (9 - len(row))])
    rows.append(["sum", len(plan.steps), whole, "100%", *[None] * 5])
    print(f"\nsteps of the event-driven network, {network.precision}\n")
    heads = ("kind", "steps", "ms", "share", "mean density", "run event-driven", "all event-driven ms", "all dense ms")
    show([*heads, "dense is faster in"], rows)
    for times_slower, report, event, dense in sorted(slow, key=lambda found: found[3] - found[2])[:10]:
        print(
            f"dense is faster: {report.name} ({report.operation}) at density {report.density:.3f}: {dense:.3g} ms against "
            f"{event:.3g} event-driven, {times_slower:.2f} times; ran {report.way}"
        )


# Spikes and accuracy


def fired(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The spikes of every neuron of a dense network, by name."""
    names = sorted(name for name, module in model.named_modules() if isinstance(module, Neuron))
    return dict(zip(names, spikes_of(model, x), strict=True))


def flipped(network: EventDriven, want: dict[str, Tensor]) -> tuple[int, int, int]:
    """How many spikes of the last run differ, of how many, in how many layers of neurons: those that fire on bits."""
    differ = count = 0
    for neurons in network._last.neurons:
        spikes = want[neurons.name]
        differ += int((spike_conv.unpack(neurons.fires.packed, spikes.dtype).reshape(spikes.shape) != spikes).sum())
        count += spikes.numel()
    return differ, count, len(network._last.neurons)


def must_be_equal_in_float64(tested: Subject) -> None:
    """
    Raises:
        SystemExit: a spike differs from the merged network's, or logits do: the event-driven network's, SpikingJelly's, or those of the
            network for ONNX Runtime.
    """
    exact, x = copy.deepcopy(tested.model).double(), channels_last(tested.shown.narrow(-4, 0, 2).double())
    reference = spikeformers.merge(exact, "cpu")
    want, logits = fired(reference, x), reference(x)
    network = spikeformers.event_driven(exact)
    got = network(x)
    if not network.live:
        raise SystemExit("the event-driven kernels are not built; see spikeformers doctor")
    differ, count, layers = flipped(network, want)
    fire = sum(bool(spikes.any()) for spikes in want.values())
    rate = statistics.mean(spikes.mean().item() for spikes in want.values())
    print(
        f"float64: {differ} of {count:,} spikes differ in {layers} of {len(want)} layers of neurons, of which {fire} fire, "
        f"at a mean rate of {rate:.3f}"
    )
    written_out = with_neurons(reference, PlainNeuron)(x)
    if differ or not all(torch.allclose(logits, other, rtol=1e-9, atol=1e-9) for other in (got, written_out)):
        raise SystemExit(
            "the event-driven network, or the one for ONNX Runtime, does not compute what the merged one does"
        )


def accuracy(tested: Subject, count: int) -> None:
    """Prints top-1 of the merged and the event-driven networks, and how many answers and spikes differ."""
    calibration, _ = tested.batch(min(AT_ONCE, tested.shown.shape[-4] // 2))
    reference = spikeformers.merge(tested.model, "cpu")
    answers = []
    reference.register_forward_hook(lambda module, args, out: answers.append(out.argmax(-1)))
    networks = {p: spikeformers.event_driven(tested.model, calibration, precision=p) for p in PRECISIONS}
    right, other, flips, total = defaultdict(int), defaultdict(int), defaultdict(int), 0
    places = spread(tested.samples, count)
    for start in range(0, count, AT_ONCE):
        x, labels = collate([tested.samples[place] for place in places[start : start + AT_ONCE]])
        x = channels_last(x)
        want = fired(reference, x)
        right["merged, float32"] += int((answers[-1] == labels).sum())
        for precision, network in networks.items():
            name = f"event-driven, {precision}"
            top = network(x).argmax(-1)
            right[name] += int((top == labels).sum())
            other[name] += int((top != answers[-1]).sum())
            differ, spikes, _ = flipped(network, want)
            flips[name] += differ
        total += spikes
    print(f"\n{count} test images\n")
    rows = [
        [name, f"{hits / count:.2%}", other[name], flips[name], f"{flips[name] / total:.1e}"]
        for name, hits in right.items()
    ]
    show(("", "top-1", "other answers", "flipped spikes", f"of {total:,}"), rows)


# Single layers


@dataclass(frozen=True)
class Shape:
    """A layer on one map of one time step; W = 1 for tokens."""

    inputs: int
    outputs: int
    kernel: int
    height: int
    width: int
    groups: int = 1


SHAPES = {
    "linear 784 x 256 -> 1024": Shape(256, 1024, 1, 784, 1),
    "linear 196 x 512 -> 2048": Shape(512, 2048, 1, 196, 1),
    "linear 3136 x 64 -> 256": Shape(64, 256, 1, 3136, 1),
    "3x3 128 -> 128 at 56 x 56": Shape(128, 128, 3, 56, 56),
    "3x3 32 -> 128 at 112 x 112": Shape(32, 128, 3, 112, 112),
    "3x3 256 -> 256 at 14 x 14": Shape(256, 256, 3, 14, 14),
    "depthwise 7x7 128 at 56 x 56": Shape(128, 128, 7, 56, 56, 128),
}


def runnable(call, *alive) -> Callable[[], None]:
    """Carries out a call of `spike_conv` on tensors that this keeps alive."""
    scratch = spike_conv.aligned_room(spike_conv.scratch_bytes(call))
    call.scratch = scratch.data_ptr()

    def run(_alive=(scratch, alive)) -> None:
        spike_conv.run(call)

    return run


def single_layer(shape: Shape, density: float) -> dict[str, Callable[[], object]]:
    """The ways to compute a layer: from spikes as the layer takes them, and together with the neuron in front of it."""
    padding = (shape.kernel // 2,) * 2
    weight = torch.randn(shape.outputs, shape.inputs // shape.groups, shape.kernel, shape.kernel) / 16
    drive = spike_conv.empty_map(1, 1, shape.inputs, shape.height, shape.width)
    drive.copy_(2.0 * (torch.rand(drive.shape) < density))  # h = x / tau reaches the threshold exactly
    spikes = lif(drive)[0]
    packed = spike_conv.pack(spikes)

    def dense(dtype):
        x, w = spikes[0].to(dtype), weight.to(dtype, memory_format=torch.channels_last)
        if shape.width == 1:  # tokens
            tokens, matrix = x[0, :, :, 0].T.contiguous(), w[:, :, 0, 0].contiguous()
            return lambda x=tokens: nn.functional.linear(x, matrix)
        return lambda x=x: nn.functional.conv2d(x, w, None, 1, padding, groups=shape.groups)

    def event(precision):
        prepared = spike_conv.prepare(weight, shape.groups, precision)
        out = spike_conv.empty_map(1, 1, shape.outputs, shape.height, shape.width)
        return runnable(spike_conv.call(packed, prepared, padding=padding, out=out), prepared, packed, out), out

    neuron = runnable(
        spike_conv.call(None, None, addends=(drive,), like=(tuple(drive.shape), drive.dtype), neuron=Dynamics(), fired=packed),
        drive,
        packed,
    )  # fmt: skip
    ways = {"dense float32": dense(torch.float32), "dense bfloat16": dense(torch.bfloat16)}
    ways["event float32"], out = event(None)
    if shape.groups == 1:  # depthwise weights are kept as they are
        ways["event int8"], _ = event(torch.int8)
    of = drive[0, 0, :, :, 0].T if shape.width == 1 else drive[0]

    def neuron_and_dense():
        ways["dense float32"](lif(of[None], return_v=False)[0][0])

    def neuron_and(way):
        def both():
            neuron()
            way()

        return both

    both = {"neuron, dense float32": neuron_and_dense}
    both |= {f"neuron, {name}": neuron_and(way) for name, way in ways.items() if name.startswith("event")}
    for way in (*ways.values(), *both.values()):
        way()
    want = ways["dense float32"]()
    got = out[0, 0, :, :, 0].T if shape.width == 1 else out[0]
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    return ways | both


def sweep(rounds: int) -> None:
    """Prints for single layers how many times faster than dense each way is, by density."""
    heads = ["density", "dense ms", "dense bfloat16", "event float32", "event int8"]
    heads += ["neuron + dense ms", "neuron + event float32", "neuron + event int8"]
    for name, shape in SHAPES.items():
        rows = []
        for density in DENSITIES:
            times = interleaved(single_layer(shape, density), rounds, REPEATS)
            row = [f"{density:.0%}"]
            for base, others in (
                ("dense float32", ("dense bfloat16", "event float32", "event int8")),
                ("neuron, dense float32", ("neuron, event float32", "neuron, event int8")),
            ):
                row.append(statistics.median(times[base]))
                row += [ratio(times[base], times[other]) if other in times else None for other in others]
            rows.append(row)
        print(
            f"\n{name}, T = 1, {torch.get_num_threads()} threads: milliseconds, and how many times faster than dense float32\n"
        )
        show(heads, rows)


# Instructions, by valgrind, which knows AVX2 but not AVX-512


def prepare_count(tested: Subject, batch: int, folder: Path) -> None:
    """Writes what takes too long under valgrind, or would be measured wrongly: the ONNX file and the calibrations."""
    calibration, x = tested.batch(batch)
    save_onnx(tested.model, x, folder / "network.onnx")
    for precision in PRECISIONS:
        choices = asdict(spikeformers.event_driven(tested.model, calibration, precision=precision).choices)
        (folder / f"{precision}.json").write_text(json.dumps({**choices, "whole": sorted(choices["whole"])}))


def count(tested: Subject, batch: int, folder: Path) -> None:
    """Runs under valgrind: a call of each contender, and a dump of what was counted after each."""
    calibration, x = tested.batch(batch)
    calls = {}
    for name, make in contenders_for(tested.model).items():
        if name == "merged, ONNX Runtime":
            calls[name] = load_onnx(folder / "network.onnx", x)
        elif name.startswith("event-driven"):
            precision = name.split(", ")[1]
            found = json.loads((folder / f"{precision}.json").read_text())
            network = spikeformers.event_driven(tested.model, precision=precision)
            network.choices = Calibration(**{**found, "whole": frozenset(found["whole"])})
            calls[name] = Driven(network, x)
        elif name != "merged, torch.compile":  # it would be compiled for this machine's AVX-512
            calls[name] = make(tested.model, calibration, x)
    for call in calls.values():
        call()
    subprocess.run(["callgrind_control", "--instr=on", str(os.getpid())], check=True, stdout=subprocess.DEVNULL)
    for call in calls.values():
        torch._C._valgrind_toggle()  # what torch.utils.benchmark's Timer.collect_callgrind does
        call()
        torch._C._valgrind_toggle_and_dump_stats()
    print(json.dumps(list(calls)))


def instructions(batch: int) -> None:
    """Prints how many instructions a call of each contender executes on one thread."""
    if not shutil.which("valgrind") or not torch._C._valgrind_supported_platform():
        print("\ninstructions: not counted, as valgrind is not installed or this build of torch does not know it")
        return
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        own = [sys.executable, __file__, *sys.argv[1:], "--threads", "1"]
        subprocess.run([*own, "--prepare", folder], env=environment, check=True)
        tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no"]
        tool.append(f"--callgrind-out-file={folder}/counted")
        done = subprocess.run([*tool, *own, "--count", folder], env=environment, capture_output=True, text=True)
        if done.returncode:
            print(f"\ninstructions: not counted, as valgrind failed: {done.stderr.strip().splitlines()[-1]}")
            return
        names = json.loads(done.stdout.splitlines()[-1])
        counted = {}
        for index, name in enumerate(names, 1):
            lines = Path(folder, f"counted.{index}").read_text().splitlines()
            counted[name] = int(next(line for line in reversed(lines) if line.startswith("totals:")).split()[1])
    print(f"\ninstructions of one call, batch {batch}, 1 thread, AVX2 builds, counted by valgrind --tool=callgrind\n")
    overs = [name for name in ("SpikingJelly", "merged") if name in counted]
    rows = [[name, own / 1e6, *(counted[over] / own for over in overs)] for name, own in counted.items()]
    show(["", "millions", *(f"fewer than {over}" for over in overs)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="meta_spikeformer_15m")
    parser.add_argument("--checkpoint", help="best.safetensors, best.ckpt or the folder of a run, in place of --model")
    parser.add_argument("--data", help="where the checkpoint's data lie, if elsewhere; none: random images")
    parser.add_argument("--img_size", type=int)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--time_steps", type=int, default=4, help="without a checkpoint")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--accuracy", type=int, metavar="N", help="top-1 of N test images of the checkpoint's data")
    parser.add_argument("--sweep", action="store_true", help="single layers at densities from 2 to 50 %%")
    parser.add_argument("--callgrind", action="store_true", help="instructions of one call, by valgrind")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    parser.add_argument("--count", help=argparse.SUPPRESS)
    options = parser.parse_args()

    random.seed(0)
    torch.set_grad_enabled(False)
    torch.set_num_threads(options.threads[0])
    tested = subject(options)
    if options.accuracy and tested.samples is None:
        parser.error("--accuracy needs a --checkpoint that says how its images are prepared, and these images")
    if options.alone:
        name, batch, threads = options.alone
        torch.set_num_threads(int(threads))
        return alone(name, tested, int(batch))
    if options.prepare:
        return prepare_count(tested, options.batch[0], Path(options.prepare))
    if options.count:
        return count(tested, options.batch[0], Path(options.count))
    steps = len(tested.shown) if tested.shown.ndim == 5 else tested.model.time_steps
    print(
        f"{tested.words}; {tuple(tested.shown.shape[-3:])}, T = {steps}, "
        f"on {platform.machine()} ({torch.backends.cpu.get_cpu_capability()}); torch {torch.__version__}, "
        f"onnxruntime {onnxruntime.__version__}; {options.rounds} rounds"
    )
    must_be_equal_in_float64(tested)
    for batch in options.batch:
        for threads in options.threads:
            torch.set_num_threads(threads)
            calls = compare(tested, batch, threads, options.rounds)
            for name in ("event-driven, float32", "event-driven, int8"):
                where_it_loses(calls[name].network, calls[name].x, options.rounds)
    if options.accuracy:
        accuracy(tested, options.accuracy)
    if options.sweep:
        for threads in options.threads:
            torch.set_num_threads(threads)
            sweep(options.rounds)
    if options.callgrind:
        instructions(options.batch[0])


if __name__ == "__main__":
    main()
