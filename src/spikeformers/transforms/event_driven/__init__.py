"""Inference in which sparsity pays: layers that read spikes add weights where spikes are, on a CPU."""
# Shapes: T time steps, B batch, C channels, H W pixels.

import contextlib
import copy
import inspect
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...kernels import spike_attention, spike_conv
from ...layers.hooks import all_changes, changes_everywhere
from ...measure import Inputs, SelfCounting, Tally, batches_of
from ..merge import merge
from ..sta.converted import Converted
from .builder import Builder
from .calibration import Calibration, calibrate
from .converted import EventDrivenConverted
from .graph import Opaque, export
from .plan import PRECISIONS, Plan
from .report import LayerReport, report

__all__ = ["EventDriven", "EventDrivenConverted", "LayerReport", "StreamState", "event_driven"]

PLANS = 8


@dataclass
class StreamState:
    """What a stream of frames has left behind: `EventDriven.stream` makes it and brings it up to date.

    Attributes:
        potentials: of every layer of neurons [B, H * W, C].
        logits: sum of the logits of all frames so far [B, classes].
        frames: how many there were.
        milliseconds: what the last one took.
    """

    potentials: list[Tensor] = field(repr=False)
    logits: Tensor = field(repr=False)
    frames: int = 0
    milliseconds: float = 0.0

    def clone(self) -> "StreamState":
        """A copy from which a stream can go on another way."""
        return copy.deepcopy(self)


class EventDriven(SelfCounting):
    """A network for inference on a CPU, made by `event_driven`. It is called like the network that it was made of.

    Attributes:
        merged: that network, merged; where the compiled kernels are missing it runs in their place.
        choices: what was found at calibration.
    """

    def __init__(self, merged: nn.Module, precision: str = "float32"):
        super().__init__()
        self.merged, self.precision = merged, precision
        self.choices: Calibration | None = None
        self._plans: dict[tuple, Plan] = {}
        self._weights: dict[tuple, spike_conv.Weight] = {}
        self._last: Plan | None = None
        self._opaque, self._told, self._parts = False, (), [*merged.modules()]
        self._lock = threading.RLock()
        for module in merged.modules():
            module.register_load_state_dict_post_hook(self._forget)

    @property
    def live(self) -> bool:
        """Whether the compiled kernels are there, and torch.export sees through the network."""
        return not self._opaque and all(library.status()[1][1] for library in (spike_conv, spike_attention))

    @torch.no_grad()
    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        """Static images [B, C, H, W] or a sequence [T, B, C, H, W] -> logits [B, classes], or [T, B, classes] `per_step`.

        The first input of a shape takes seconds longer: its plan is made then. The last 8 shapes are kept.

        Raises:
            ValueError: as the network itself; or a type or device that is not the network's.
        """
        must_fit(x, next(self.merged.parameters()))
        options = {"per_step": True} if per_step else {}
        if not self.live or not x.numel() or self._changed():
            self._last = None
            return self.merged(x, **options)
        with self._alone():
            try:
                self._last = plan = self.plan(x, per_step)
                return plan.run(x)
            except Opaque as error:
                reason = error
        answer = self.merged(x, **options)
        self._give_up(reason)
        return answer

    def _changed(self) -> list[str]:
        """Hooks and the like that a plan does not see, with the names of their modules. They are told once."""
        if not (
            any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in self._parts)
            or changes_everywhere()
        ):
            return []  # usual and fast
        found = all_changes(self.merged)
        if found and tuple(found) != self._told:
            self._told = tuple(found)
            warnings.warn(
                f"the merged network runs in place of the event-driven one, so that these are honoured: {'; '.join(found)}; a hook that only "
                "listens can say so with an attribute listens = True, and is then not called",
                stacklevel=3,
            )
        return found

    def _give_up(self, reason: Opaque) -> None:
        self._opaque, self._last = True, None
        warnings.warn(f"{reason}; the merged network runs in its place", stacklevel=3)

    @contextlib.contextmanager
    def _alone(self):
        """Plans and their buffers serve one thread at a time, and no mode of torch's changes what they compute."""
        with self._lock, torch.autocast("cpu", enabled=False), torch.inference_mode(False), torch.no_grad():
            yield

    def _apply(self, fn, recurse=True):
        self._forget()
        return super()._apply(fn, recurse)

    def _forget(self, *_) -> None:
        """Forgets plans and what was prepared for them, since weights change."""
        self._plans.clear()
        self._weights.clear()
        self._last = None

    def plan(self, x: Tensor, per_step: bool = False, stream: bool = False) -> Plan:
        """The steps for inputs of x's shape, [B, C, H, W] or [T, B, C, H, W], and the present number of threads.

        Args:
            x: an input.
            per_step: whether the answers of each step are wanted.
            stream: whether it is for `stream`, whose neurons have their potentials in its state.
        """
        key = tuple(x.shape), per_step, stream, torch.get_num_threads()
        if key not in self._plans:
            if len(self._plans) >= PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = self._planned(x, per_step)
        self._plans[key] = self._plans.pop(key)  # the latest is last
        return self._plans[key]

    def _planned(self, x: Tensor, per_step: bool) -> Plan:
        build, whole = self.builder(x, per_step), self.choices.whole if self.choices else frozenset()
        plan = build(whole, build(whole).places)  # the first shows which maps can share memory
        if self.choices:
            self.choices.apply(plan)
        return plan

    def builder(self, x: Tensor, per_step: bool = False) -> Callable[..., Plan]:
        """What makes plans for inputs of x's shape, [B, C, H, W] or [T, B, C, H, W], given the chains of convolutions that are to be one, and places for the maps.

        Without places every map has its own memory, and steps can be repeated one by one.
        """
        exported = export(self.merged, x, per_step)

        def build(whole, places=None):
            with torch.device("cpu"):  # whatever the default is
                return Builder(exported, PRECISIONS[self.precision], whole, self._weights, places).build()

        return build

    def layers(self) -> list[LayerReport]:
        """Which layers ran how in the last run, in their order. Empty before the first."""
        return [report(layer, layer.source.density) for layer in self._last.layers] if self._last else []

    def tally(self) -> Tally:
        """What the neurons emitted in the last run, all time steps together."""
        tally = Tally()
        for name, (spikes, places) in self.fired().items():
            tally.add(name, emitted=[spikes], thresholds=[spikes], places=[places])
        return tally

    def fired(self) -> dict[str, tuple[int, int]]:
        """Spikes of every layer of neurons in the last run, and how many there could have been, by the name of its module."""
        found: dict[str, tuple[int, int]] = {}
        for neurons in self._last.neurons if self._last else []:  # a module may run several times
            spikes, places = found.get(neurons.name, (0, 0))
            found[neurons.name] = spikes + sum(neurons.fires.count), places + neurons.fires.numbers
        return found

    def firing_rates(self) -> dict[str, float]:
        """Firing rate of every layer of neurons in the last run, by the name of its module."""
        return {name: spikes / places for name, (spikes, places) in self.fired().items()}

    def memory(self) -> dict[str, int]:
        """Bytes that plans hold for what flows through them, and bytes of the weights prepared for them."""
        weights = sum(weight.tiles.numel() for weight in self._weights.values())
        return {"buffers": sum(plan.buffers for plan in self._plans.values()), "weights": weights}

    def stream(self, frame: Tensor, state: StreamState | None = None) -> tuple[Tensor, StreamState]:
        """One frame of a stream: an answer after each, that after T frames is forward's for the T frames.

        Args:
            frame: [B, C, H, W].
            state: what the last frame returned, or None for the first. It is brought up to date in place; `clone` keeps one.

        Returns:
            Logits so far [B, classes], the mean over frames, and the state, which also says how long this frame took.

        Raises:
            ValueError: the frame or state does not fit, the kernels are missing, or the network needs all frames at once: its
                time steps shrink by weights computed from the whole sequence.
        """
        must_fit(frame, next(self.merged.parameters()))
        if frame.ndim != 4 or not frame.numel():
            raise ValueError(f"expected one frame [B, C, H, W], of at least one sample, not {tuple(frame.shape)}")
        if not isinstance(state, StreamState | None):
            raise ValueError(f"the state is what the last call of stream returned, or None, not {type(state).__name__}")
        if "per_step" not in inspect.signature(self.merged.forward).parameters:
            raise ValueError(
                f"streaming needs logits of every step; give {type(self.merged).__name__} a forward(self, x, per_step=False) that "
                "returns [T, B, classes] when it is asked to"
            )
        if not self.live:
            why = (
                "torch.export does not see through this network"
                if self._opaque
                else "the compiled kernels are missing (spikeformers doctor)"
            )
            raise ValueError(f"streaming needs a plan of the network's operations, and {why}")
        if found := self._changed():
            raise ValueError(
                f"streaming needs a plan of the network's operations, which does not see hooks: {'; '.join(found)}; remove them"
            )
        schedule = getattr(self.merged, "schedule", None)
        if schedule and len(set(schedule)) > 1:
            raise ValueError(
                f"time steps shrink from stage to stage here ({schedule}), which needs all frames; stream an unshrunk network"
            )
        with self._alone():
            try:
                self._last = plan = self.plan(frame[None], True, stream=True)
            except Opaque as error:
                raise ValueError(f"streaming needs a plan of the network's operations: {error}") from None
            started = time.perf_counter()  # the plan is made once
            if plan.stateless:
                raise ValueError(
                    f"these neurons cannot be streamed, as their potentials are not at hand: {', '.join(plan.stateless)}"
                )
            shapes = [(b, h * w, c) for b, c, h, w in (neurons.shape for neurons in plan.neurons)]
            if state is None:
                state = StreamState(
                    [torch.zeros(shape, dtype=frame.dtype, device="cpu") for shape in shapes],
                    torch.zeros((), dtype=frame.dtype, device="cpu"),
                )
            found = [(tuple(v.shape), v.dtype, v.device.type, v.is_contiguous()) for v in state.potentials]
            if found != [(shape, frame.dtype, "cpu", True) for shape in shapes]:
                raise ValueError(
                    "the state is that of another network, or of frames of another shape or type; start with state=None"
                )
            for neurons, v in zip(plan.neurons, state.potentials, strict=True):
                for call in neurons.calls:
                    call.v = call.v_out = v.data_ptr()
            state.logits = state.logits + plan.run(frame[None])[0]
        state.frames += 1
        state.milliseconds = 1e3 * (time.perf_counter() - started)
        return state.logits / state.frames, state

    def __getstate__(self):
        """Without the plans, which hold addresses; they are made again when needed."""
        return {**super().__getstate__(), "_plans": {}, "_weights": {}, "_last": None, "_lock": None}

    def __setstate__(self, state):
        super().__setstate__(state)
        self._lock = threading.RLock()

    def extra_repr(self) -> str:
        return f"precision={self.precision!r}, kernels={'live' if self.live else 'missing'}"


def must_compute(like: Tensor | None) -> None:
    """Refuses a network that there are no kernels for, by one of its parameters [...].

    Raises:
        ValueError: `like` is None, of another type than float32 and float64, or not on the CPU.
    """
    if like is None or like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
        found = "none" if like is None else f"{like.dtype} on {like.device}"
        raise ValueError(
            f"expected a model with parameters in float32 or float64 on the CPU, not {found}; load its weights there, or use "
            "model.cpu().float()"
        )


def must_fit(x: Tensor, like: Tensor) -> None:
    """Refuses an input [B, C, H, W] or [T, B, C, H, W] that a network cannot take.

    Raises:
        ValueError: x is no tensor, or has another type or lies on another device than a network with the parameter `like`; or that
            network computes in a type that there are no kernels for.
    """
    if not isinstance(x, Tensor):
        raise ValueError(
            f"expected a tensor of images [B, C, H, W] or a sequence [T, B, C, H, W], not {type(x).__name__}; event-driven networks take "
            "one batch, so convert it with torch.as_tensor or take a batch of a loader; detectors, which take lists, are not supported"
        )
    must_compute(like)
    if x.device.type != "cpu" or x.dtype != like.dtype:
        raise ValueError(
            f"the input is {x.dtype} on {x.device} and this network {like.dtype} on the CPU; prepare it as in training and convert it with "
            f"x.to('cpu', {like.dtype})"
        )


def event_driven(
    model: nn.Module, calibration: Inputs | None = None, *, precision: str = "float32"
) -> EventDriven | EventDrivenConverted:
    """A network that computes with spikes as bits, and adds a layer's weights only where there are any.

    The model is merged for CPUs. Whatever reads spikes (convolutions of one group and depthwise ones, linear layers, pooling, attention)
    runs on bits; a layer, what is added to it and the neurons behind it are one pass over time; what does not depend on time is
    computed once. Everything else is torch's own. The calibration measures on this machine, at the density that its spikes have, from
    which density on a layer is faster dense, and which pointwise and depthwise convolutions in a row are faster as one; every run
    decides by that, layer by layer.

    Args:
        model: any backbone of the registry, shrunk or not, merged or not; others whose operations torch.export finds; or what `convert`
            returned, see `EventDrivenConverted`. Left as it is.
        calibration: inputs as the network will see them, in any form of `measure.batches_of`, of which the first batch is used: real ones, or
            densities are wrong. None: all layers run event-driven.
        precision: how weights of event-driven layers are kept, "float32", "bfloat16" or "int8" (one scale for each output channel);
            sums are float32. A float64 model keeps float64 throughout, with "float32": the reference mode.

    Raises:
        ValueError: that is no model, it is on another device, or there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if isinstance(model, (EventDriven, EventDrivenConverted)):
        model = model.merged
    converted = isinstance(model, Converted)
    merged = model if converted else merge(model, "cpu")
    like = next(merged.parameters(), None)
    must_compute(like)
    if like.dtype == torch.float64 and precision != "float32":
        raise ValueError(f"precision {precision!r} is for float32 models; this one is float64")
    if converted:
        driven = EventDrivenConverted(model, precision)
        if calibration is not None and driven.live:
            batch = next(batches_of(calibration, model))
            for x in (*batch.args, *batch.kwargs.values()):
                if isinstance(x, Tensor) and x.is_floating_point():
                    must_fit(x, like)
            driven.calibrate(*batch.args, **batch.kwargs)
        return driven
    driven = EventDriven(merged, precision).eval()
    if driven._changed() or calibration is None:
        return driven
    if driven.live:
        x = next(batches_of(calibration, model)).x
        must_fit(x, like)
        try:
            with driven._alone():
                driven.choices = calibrate(driven.builder(x), x)
                driven._weights.clear()  # those of chains in both forms
        except Opaque as reason:
            driven._give_up(reason)
    return driven
