"""The state of a converted network while it runs, and its neurons."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ....measure import Tally, named
from ....measure.tally import exact
from ..neurons import integrate_and_fire, transmit
from . import rules
from .rate import RUNNING, Kind, Rate, bare

GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, are evenly spread wherever one stops


@dataclass
class Run:
    """The state of a converted network while it runs: one object per batch, nothing is kept in modules.

    Attributes:
        thresholds: of every neuron, by its name, in the shape that is broadcast against its input's last axes; None while everything
            passes unchanged (the network as it was).
        levels, potential: see `neurons.fire`.
        form: "means" or "spikes".
        functions: what to use instead of functions, by name: approximation(place, exact function, args, kwargs).
        strict: whether functions without an approximation are refused.
        observer: is shown the inputs of every neuron and function, for calibration.
        counting: whether spikes are counted.
        carry_out: computes layers of whole numbers instead of torch, in the form "spikes": carry_out(place, function, counts, scale of
            their channels, weight, bias, options) is the result, or None where torch is to compute it.
        t: time steps begun.
        shaped: thresholds as they are broadcast against activations.
        counts: emitted so far by every neuron, in thresholds.
        sums: received so far, where that is state ("spikes" only).
        islands: functions that are evaluated in real numbers, by place.
        fitted: functions that networks of rectified units approximate, by place: they read means, and multiply by the weights that they hold.
        tally: what neurons emitted, by their place, where that is counted.
    """

    thresholds: dict[str, Tensor] | None
    levels: int = 4
    potential: float = 0.5
    form: str = "means"
    functions: dict[str, Callable] = field(default_factory=dict)
    strict: bool = False
    observer: Any = None
    counting: bool = False
    carry_out: Callable[..., Tensor | None] | None = None
    t: int = 0
    shaped: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    islands: dict[str, str] = field(default_factory=dict)
    fitted: dict[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    path: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)

    def step(self, model: Callable, args: tuple, kwargs: dict, constant: bool = False) -> Any:
        """One time step of the model; its inputs, masks aside, are the same in every step or not.

        Args:
            model: called once.
            args, kwargs: its input.
            constant: whether that is the same in every step.

        Raises:
            ValueError: an operation cannot be converted, inputs have another shape than before, or counters are full.
        """
        self.t += 1
        if self.t * self.levels > torch.iinfo(torch.int16).max:
            raise ValueError(f"a state counts up to {self.t - 1:,} time steps with bursts of {self.levels}; start anew")
        self.calls.clear()
        self.path.clear()

        def entered(name: int | str, x: Any) -> Any:
            return (
                self.entered(f"input {name}", x, constant) if isinstance(x, Tensor) and "mask" not in str(name) else x
            )

        args = tuple(entered(i, x) for i, x in enumerate(args))
        kwargs = {key: entered(key, x) for key, x in kwargs.items()}
        token = RUNNING.set(self)
        try:
            output = model(*args, **kwargs)
            with torch._C.DisableTorchFunctionSubclass():
                return tree_map(partial(rules.divided, self), output)
        finally:
            RUNNING.reset(token)

    def call(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """What `func` makes of rates, see `rules`.

        Args:
            func: the function.
            args, kwargs: what it is called with.
        """
        return rules.apply(self, func, args, kwargs)

    def place(self, name: str) -> str:
        """A name for this call, the same in every step: the module's path, the function and, from the second on, a number."""
        place = f"{self.path[-1] if self.path else ''}:{name}"
        number = self.calls[place] = self.calls.get(place, -1) + 1
        return f"{place}.{number}" if number else place

    def refusal(self, name: str, why: str) -> ValueError:
        """The error that `name` cannot be converted, with the module where it was met; to be raised."""
        where = self.path[-1] if self.path and self.path[-1] else "the model's own forward"
        return ValueError(
            f"{where}: {name} cannot be converted: {why}; register a handler for the function (spikeformers.transforms.sta.handles) "
            "or an adapter for the class of the module that calls it (spikeformers.transforms.sta.adapts)"
        )

    def entered(self, place: str, x: Tensor, constant: bool) -> Rate:
        """An input of the network.

        Args:
            place: the input's name.
            x: [B, ...].
            constant: whether it is the same in every step.

        Raises:
            ValueError: the input had another shape before.
        """
        if self.form == "means" and not constant and x.is_floating_point():
            if place in self.sums and self.sums[place].shape != x.shape:
                raise ValueError(
                    f"{place}: was {tuple(self.sums[place].shape)} and is now {tuple(x.shape)}; start anew for another batch"
                )
            x = self.received(place, x) / self.t
        return Rate.of(x, Kind(analog=True, constant=constant))

    def mean(self, place: str, x: Rate) -> Tensor:
        """What was received so far [...], divided by t."""
        value = bare(x)
        if self.form == "means" or x.kind.constant:
            return value
        return self.received(place, value) / self.t

    def received(self, place: str, value: Tensor) -> Tensor:
        """The sum [...] of what has come here, this step included."""
        return self.sum_at(place, value).add_(value)

    def sum_at(self, place: str, like: Tensor) -> Tensor:
        """The sum [...] of what has come to a place before, zero at first; like `like` in shape and type."""
        if place not in self.sums:
            self.sums[place] = like.clone(
                memory_format=torch.contiguous_format
            ).zero_()  # a copy, which the audit takes for data
        return self.sums[place]

    def rate_of(self, place: str, mean: Tensor) -> Rate:
        """A mean so far [...] as a rate: real-valued, not spikes."""
        if self.form == "means":
            return Rate.of(mean, Kind())
        total = mean * self.t
        sent = self.sums.get(f"{place}/sent")
        self.sums[f"{place}/sent"] = total
        return Rate.of(total if sent is None else total - sent, Kind())

    def neuron(self, place: str, x: Rate, axes: tuple[int, ...] | None) -> Rate:
        """Integrate-and-fire neurons that turn a current into spikes.

        Args:
            place: name of what reads the spikes.
            x: the current.
            axes: along which channels have a threshold each; None for one threshold.
        """
        place = f"{place}/in"
        if self.form == "means" or self.thresholds is None or x.kind.constant:
            return self.fired(place, self.mean(place, x), axes)
        value = bare(x)
        threshold, counts = self._state(place, value, axes)
        with named(place):
            spikes = integrate_and_fire(
                value, self.sum_at(place, value), counts, threshold, self.levels, self.potential
            )
        return self._emitted(place, spikes, threshold, counts, axes)

    def fired(self, place: str, mean: Tensor, axes: tuple[int, ...] | None, spread: bool = False) -> Rate:
        """Spikes of neurons that are to transmit this mean [...].

        Args:
            spread: whether their initial potentials are evenly spread along the last axis, so that equal values are not all rounded
                the same way.
        """
        if self.observer:
            self.observer.neuron(place, mean, axes)
        if self.thresholds is None:
            x = mean if self.form == "means" else bare(self.rate_of(place, mean))
            return Rate.of(x, Kind(spikes=True, axes=axes))
        threshold, counts = self._state(place, mean, axes)
        if spread:
            potentials = torch.arange(1, mean.shape[-1] + 1, device=mean.device, dtype=mean.dtype) * GOLDEN % 1
            mean = mean + (potentials - self.potential) * (threshold / self.t)
        with named(place):
            spikes = transmit(mean, counts, threshold, self.t, self.levels, self.potential)
        return self._emitted(place, spikes, threshold, counts, axes)

    def _state(self, place, like, axes):
        """Thresholds and counts of the neurons of a place."""
        if place not in self.shaped:
            found = self.thresholds.get(place, self.thresholds.get(any_call(place)))
            if found is None:
                raise self.refusal(
                    place, "calibration has not seen this place, so the input takes another way through the model"
                )
            threshold = found.to(like)
            while threshold.ndim > like.ndim and threshold.shape[0] == 1:  # a sample by itself
                threshold = threshold[0]
            if threshold.ndim > like.ndim or any(
                a not in (1, b) for a, b in zip(reversed(threshold.shape), reversed(like.shape), strict=False)
            ):
                raise ValueError(
                    f"{place}: calibration saw channels {tuple(threshold.shape)}, and this input has {tuple(like.shape)}; convert with inputs "
                    "such as the network will see"
                )
            self.shaped[place] = threshold.view(*[1] * (like.ndim - threshold.ndim), *threshold.shape)
            self.counts[place] = torch.zeros_like(like, dtype=torch.int16, memory_format=torch.contiguous_format)
        counts = self.counts[place]
        if counts.shape != like.shape:
            raise ValueError(
                f"{place}: was {tuple(counts.shape)} and is now {tuple(like.shape)}; start anew for another batch"
            )
        return self.shaped[place], counts

    def _emitted(self, place, spikes, threshold, counts, axes):
        if self.counting:
            thresholds = spikes.abs().sum(dtype=exact(spikes.device))
            emitted, thresholds = torch.stack([spikes.count_nonzero().to(thresholds.dtype), thresholds]).tolist()
            self.tally.add(place, self.t - 1, emitted=[emitted], thresholds=[thresholds], places=[spikes.numel()])
        if self.form == "means":
            return Rate.of(counts * (threshold / self.t), Kind(spikes=True, axes=axes))
        factors = spikes, threshold.expand_as(spikes)
        return Rate.of(spikes * threshold, Kind(spikes=True, axes=axes, factors=factors))

    def approximation(self, name: str, place: str, exact: Callable) -> Callable:
        """What stands for a function of tensors in this run; the exact one is noted as an island.

        Args:
            name: of the function.
            place: where it stands.
            exact: the function itself.
        """
        if name in self.functions:
            self.fitted[place] = name
            return lambda *args, **kwargs: self.functions[name](place, partial(exact, **kwargs), args, kwargs)
        if self.strict:
            raise self.refusal(name, "it has no spiking approximation; convert with spiking='hybrid'")
        self.islands[place] = name
        return exact


def any_call(place: str) -> str:
    """The place that stands for all calls of a function in a module, each of which `Run.place` has numbered."""
    path, _, rest = place.partition(":")
    name, slash, rest = rest.partition("/")
    return f"{path}:{name.split('.')[0]}.*{slash}{rest}"
