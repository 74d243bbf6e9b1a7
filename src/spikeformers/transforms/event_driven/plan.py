"""A plan at run time: steps on bits, and what flows between them."""
# Shapes: T time steps, B batch, C channels, H W pixels, N tokens. A map is [T, B, C, H, W], channels last in memory. Vectors [T, B, C]
# are maps of one pixel, tokens [T, B, N, C] maps of H = N and W = 1.

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...kernels import spike_conv
from ...kernels.spike_conv import Packed

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "int8": torch.int8}
"""How the weights of event-driven layers may be kept: None stands for their own type."""


@dataclass
class Bits:
    """Spikes at run time.

    Attributes:
        count: how many there were in the last run, summed by each thread.
        numbers: how many there could have been.
        tokens: whether they are tokens [T, B, N, C] or vectors [T, B, C] in the network, and no map.
        scale: what a bit is worth: less than 1 after pooling by mean.
    """

    packed: Packed
    count: ctypes.Array
    numbers: int
    tokens: bool = False
    scale: float = 1.0

    @property
    def density(self) -> float:
        """Spikes per number and time step in the last run."""
        return sum(self.count) / self.numbers


@dataclass
class Slot:
    """A tensor that torch makes anew in every run: its place in the environment."""

    index: int


@dataclass
class DrivenLayer:
    """A convolution or linear layer that reads spikes.

    Attributes:
        name: of the module; of the last where several convolutions are one.
        source: the spikes that it reads.
        event, dense: carry it out in one way or the other, with the same result but for rounding.
        limit: density up to which the event-driven way is faster; None: not calibrated, so always.
        chain: what the layer is part of that could also be one convolution, or is one instead of; None: nothing.
        milliseconds: at calibration: event-driven without spikes, and with those of the calibration; dense.
        way: "event-driven" or "dense", in the last run.
    """

    name: str
    operation: str
    source: Bits
    event: Callable[[list], None]
    dense: Callable[[list], None]
    chain: str | None = None
    limit: float | None = None
    milliseconds: tuple[float, float, float] | None = None
    way: str = "event-driven"

    def __call__(self, env: list) -> None:
        if self.limit is not None and self.source.density > self.limit:
            self.way = "dense"
            self.dense(env)
        else:
            self.way = "event-driven"
            self.event(env)


class MapStep:
    """Carries out a call of `spike_conv`; addends that torch makes anew are found in the environment.

    Args:
        call: what `spike_conv.call` made.
        made_anew: numbers of addends, and the slots in which they are found.
        alive: what must live as long as the call.
    """

    def __init__(self, call, made_anew: list[tuple[int, int]], alive: tuple):
        self.call, self.made_anew, self.alive = call, made_anew, alive
        self.shape = call.steps, call.batch, call.out_channels, call.out_height, call.out_width
        self.dtype = spike_conv.native.type_of(call)
        self.carry_out, self.pointer = spike_conv.native.load()[0].spike_map, ctypes.pointer(call)

    def __call__(self, env: list, sums: Tensor | None = None) -> None:
        if sums is not None:
            self.call.addend[0] = spike_conv.native.values(sums)
        maps = [(index, as_map(env[slot])) for index, slot in self.made_anew]  # alive until the call returns
        for index, addend in maps:
            if tuple(addend.shape) != self.shape or addend.dtype != self.dtype:
                raise ValueError(
                    f"a step adds {self.shape} of {self.dtype} and got {tuple(addend.shape)} of {addend.dtype}"
                )
            self.call.addend[index] = spike_conv.native.values(addend)
        spike_conv.native.must_work(self.carry_out(self.pointer))


@dataclass
class DrivenNeurons:
    """Neurons [B, C, H, W] at run time, and the calls that let them fire, one of which is carried out."""

    name: str
    shape: tuple[int, ...]
    fires: Bits
    calls: list = field(default_factory=list)


@dataclass
class Room:
    """Memory for spikes as numbers, shared by all layers that run dense."""

    numel: int = 0
    tensor: Tensor | None = None


@dataclass(frozen=True)
class Places:
    """Where maps lie that share memory, in the order in which they are made.

    Attributes:
        offsets: in bytes.
        size: of it all.
    """

    offsets: tuple[int, ...]
    size: int

    def __iter__(self):
        return iter(self.offsets)


@dataclass
class Plan:
    """The steps of one network for one shape of input.

    Attributes:
        steps: each takes the environment, a list of the tensors that torch makes; its first is the input.
        layers: those steps that are layers.
        marks: for every step the chain that it is part of, or None.
        neurons: in the order in which they fire; what a stream keeps the potentials of.
        stateless: names of neurons that torch computes, always from rest: with any of them there is no stream.
        output: gives the result from the environment.
        slots: the environment's length.
        buffers: bytes of what is allocated once, weights aside.
        places: where maps could lie if those that are not needed at the same time shared memory.
        last: for every step the slots that nobody reads after it.
    """

    steps: list[Callable[[list], None]]
    layers: list[DrivenLayer]
    marks: list[str | None]
    neurons: list[DrivenNeurons]
    stateless: list[str]
    output: Callable[[list], Tensor]
    slots: int
    buffers: int
    places: Places
    last: list[list[int]]

    def run(self, x: Tensor) -> Tensor:
        """Carries out all steps on x, [B, C, H, W] or [T, B, C, H, W]: the network's answer [...]."""
        env = [None] * self.slots
        env[0] = x
        for step, over in zip(self.steps, self.last, strict=True):
            step(env)
            for slot in over:
                env[slot] = None
        return self.output(env)


def as_map(x: Tensor) -> Tensor:
    """A map [T, B, C, H, W], tokens [T, B, N, C] or vectors [T, B, C] as the kernels take maps."""
    x = x.movedim(3, 2)[..., None] if x.ndim == 4 else x[..., None, None] if x.ndim == 3 else x
    return spike_conv.channels_last(x)
