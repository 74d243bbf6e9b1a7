"""Training-free conversion of pretrained networks into spiking ones (STA: Jiang et al., ICLR 2024)."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle

from ...layers.hooks import copied, listening
from ...measure import Inputs, Stepped, Tally, batches_of, device_of
from . import adapters  # noqa: F401 - registers its handlers
from .approximators import FITTED, approximations, tables
from .neurons import fit_threshold
from .rates import RUNNING, Rate, Run, adapt, any_call, plain

MODES = ("full", "hybrid")
SAMPLES = 1 << 16  # activations kept of every neuron's site and batch, at least so many of each channel:
SAMPLES_PER_CHANNEL = 256
BATCHES = 8  # of such samples, after which some of all of them are kept
MARGIN = 2**0.25  # other inputs may go beyond the largest that was seen


class Converted(Stepped):
    """A network that was converted: the same modules and weights, run with spikes.

    Args:
        model, thresholds, time_steps, levels, potential, spiking, ranges: as below; without ranges functions are
            approximated where they always are.

    Attributes:
        model: the network; it shares the original's parameters.
        thresholds: {T: {place: thresholds of its channels [..., C, ...], in the shape that is broadcast against activations}}.
        time_steps: how long `forward` runs.
        levels, potential: of the neurons, see `neurons.fire`.
        spiking: "full" or "hybrid".
        ranges: the largest magnitude that calibration saw before each kind of activation function.
    """

    def __init__(
        self,
        model: nn.Module,
        thresholds: dict[int, dict[str, Tensor]],
        time_steps: int,
        levels: int = 4,
        potential: float = 0.5,
        spiking: str = "hybrid",
        ranges: dict[str, float] | None = None,
    ):
        super().__init__()
        self.model, self.thresholds, self.ranges = model, thresholds, dict(ranges or {})
        self.time_steps, self.levels, self.potential, self.spiking = time_steps, levels, potential, spiking
        self.functions = functions_of(spiking, self.ranges)
        self._watchers: dict[int, Callable[[Tally], None]] = OrderedDict()
        adapt(model)
        for name, module in model.named_modules():
            module.register_forward_pre_hook(_entering(name))
            module.register_forward_hook(_left, always_call=True)
        self.eval()

    def start(self, form: str = "means", time_steps: int | None = None, counting: bool = False, **options) -> Run:
        """A new state, for `step`.

        Args:
            form: "means", fast, or "spikes", in which layers read spikes and nothing else; equal to rounding.
            time_steps: T for which thresholds are taken, the smallest calibrated one that is not below it.
            counting: whether spikes are counted, in `Run.tally`.

        Raises:
            ValueError: no such form.
        """
        if form not in ("means", "spikes"):
            raise ValueError(f"form must be 'means' or 'spikes', not {form!r}")
        return Run(
            self._thresholds(time_steps or self.time_steps),
            self.levels,
            self.potential,
            form,
            self.functions,
            strict=self.spiking == "full",
            counting=counting,
            **options,
        )

    def _thresholds(self, time_steps):
        if not self.thresholds:
            return None
        return self.thresholds[min((T for T in self.thresholds if time_steps <= T), default=max(self.thresholds))]

    @property
    def num_classes(self) -> int | None:
        """Of a classifier, see `classes_of`."""
        return classes_of(self.model)

    @torch.no_grad()
    def step(self, state: Run, *args, constant: bool = False, **kwargs) -> Any:
        """One time step: what the network answers to all it has seen so far.

        Args:
            state: from `start`, changed in place.
            args, kwargs: what the network takes, masks by keyword; all but those may differ from step to step.
            constant: the input is the same in every step of this state, so what only depends on it is computed once.

        Returns:
            What the network returns, decoded: the mean over the steps so far.
        """
        batch = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        if batch is None or not batch.ndim:
            raise ValueError("the first input must be a tensor of images or tokens [B, ...]")
        if batch.is_floating_point() and not (constant and state.t):
            with _disable_current_modes():  # this is no part of the network, which an audit follows
                finite = bool(batch.isfinite().all())
            if not finite:
                raise ValueError("the input holds NaN or infinity, which spikes cannot carry")
        state.tally.samples = len(batch)
        output = state.step(self.model, args, kwargs, constant)
        number = iter(range(1 << 30))
        return tree_map(lambda x: state.mean(f"output {next(number)}", x) if _varies(x) else plain(x), output)

    def steps(self, *args, time_steps: int | None = None, form: str = "means", state: Run | None = None, **kwargs) -> Iterator[Any]:
        """The decoded answer after every step: any-time output of a constant input.

        Args:
            args, kwargs: the network's input, the same in every step.
            time_steps: T, if not that of the conversion.
            form: "means" or "spikes", see `start`.
            state: to go on with; a new one if None.
        """
        time_steps = time_steps or self.time_steps
        state = state or self.start(form, time_steps, counting=bool(self._watchers))
        for _ in range(time_steps):
            yield self.step(state, *args, constant=True, **kwargs)
        for watcher in self._watchers.values():
            watcher(state.tally)

    def answers(self, *args, **kwargs) -> Iterator[Any]:
        """The answer [B, ...] after each step, in the form "spikes"."""
        return self.steps(*args, form="spikes", **kwargs)

    def constants(self) -> list[Tensor]:
        """Thresholds, and what the approximators of functions hold: tensors [...]."""
        return [*tree_leaves(self.thresholds), *tables()]

    def watch(self, watcher: Callable[[Tally], None]) -> RemovableHandle:
        """Calls a function with what the neurons of every batch emitted that has run to its end; `remove()` of what is returned ends
        that."""
        handle = RemovableHandle(self._watchers)
        self._watchers[handle.id] = watcher
        return handle

    def forward(self, *args, per_step: bool = False, **kwargs) -> Any:
        """What the network returns, after `time_steps` steps of a constant input.

        Args:
            per_step: instead the logits of every step [T, B, classes], of which the mean over the first t is the answer after t.
        """
        if not per_step:
            return deque(self.steps(*args, **kwargs), maxlen=1).pop()
        means = torch.stack([logits_of(output) for output in self.steps(*args, **kwargs)])
        t = torch.arange(1, len(means) + 1, device=means.device, dtype=means.dtype).view(-1, *[1] * (means.ndim - 1))
        return (means * t).diff(dim=0, prepend=torch.zeros_like(means[:1]))

    def train(self, mode: bool = True) -> "Converted":
        """Stays in eval mode: there is nothing to train."""
        return super().train(False)


def convert(
    model: nn.Module,
    calibration: Inputs,
    time_steps: int | Sequence[int] = 32,
    *,
    levels: int = 4,
    potential: float = 0.5,
    spiking: str = "hybrid",
) -> Converted:
    """A spiking network that answers like a pretrained one, without training.

    Everything is converted where it is met while the network runs: layers with weights read spikes of signed integrate-and-fire
    neurons, attention multiplies sums of spikes, other functions become neurons that transmit the function of their input's mean so
    far. The first layer reads the input itself as a constant current, as in the paper.

    Args:
        model: any network whose forward pass is made of torch functions; it is left as it is, its weights are shared. What is
            converted is what it does in eval mode.
        calibration: what thresholds are chosen by, in any form of `measure.batches_of`; labels are not looked at. Of a data configuration
            256 training samples are taken, prepared as in a test, so that the test samples choose nothing. Some hundred samples do; values
            beyond those that they have shown saturate, however long the network runs.
        time_steps: T, or several of which each gets its own thresholds; the largest is how long the network runs, and its thresholds
            are taken unless `time_steps` says otherwise there.
        levels: whole thresholds that a neuron may emit in one step, of either sign: 1 for ternary spikes, more for bursts.
        potential: at the start, in thresholds.
        spiking: "hybrid" evaluates functions (softmax, normalisation, activations) exactly on the means; "full" by networks of
            rectified units alone, and refuses a function that has none.

    Raises:
        ValueError: an option is out of range, there is no calibration data, or an operation cannot be converted: the message names it.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"expected a network (torch.nn.Module), not {type(model).__name__}; put a function into a module's forward")
    wanted = check_options(time_steps, levels, potential, spiking)
    shared = {id(x): x for x in (*model.parameters(), *model.buffers())}
    converted = Converted(copied(model, shared), {}, max(wanted), levels, potential)
    sites = _Sites()
    for batch in batches_of(calibration, model, calibration=True):
        batch = batch.to(device_of(model))
        args, kwargs = batch.args, batch.kwargs
        answer = converted.step(converted.start(observer=sites), *args, constant=True, **kwargs)
    sites.settle(_with_other_samples(converted, args, kwargs))
    thresholds = {T: sites.thresholds(T, levels) for T in wanted}
    _follow(converted, answer, args, kwargs)
    finished = Converted(copied(model, shared), thresholds, max(wanted), levels, potential, spiking, sites.ranges)
    finished.step(finished.start(), *args, constant=True, **kwargs)  # refuses now what it would refuse later
    return finished


def _with_other_samples(converted: Converted, args: tuple, kwargs: dict) -> dict[str, list[int]]:
    """Where thresholds would have which shape if there were another number of samples.

    A network may have made channels of its samples, say for a grouped convolution with weights of each sample's own.
    """
    count = len(next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)))

    def other(x):
        if not isinstance(x, Tensor) or not x.ndim or len(x) != count:
            return x
        return x[:1] if count > 1 else torch.cat([x, x])

    sites = _Sites()
    try:
        converted.step(converted.start(observer=sites), *tree_map(other, args), constant=True, **tree_map(other, kwargs))
    except Exception:  # whatever it raises: it is a network for this number of samples
        return {}
    return sites.shapes


def check_options(time_steps: int | Sequence[int], levels: int, potential: float, spiking: str) -> list[int]:
    """The time steps in order, if `convert` takes all of this.

    Args:
        time_steps, levels, potential, spiking: as for `convert`.

    Raises:
        ValueError: it does not.
    """
    wanted = sorted({time_steps} if isinstance(time_steps, int) else set(time_steps) if isinstance(time_steps, Sequence) else ())
    if not wanted or not all(isinstance(T, int) for T in wanted) or wanted[0] < 1:
        raise ValueError(f"time_steps must be a whole number or several, at least 1, not {time_steps!r}")
    if not isinstance(levels, int) or levels < 1 or max(wanted) * levels > 2**15 - 1:
        raise ValueError(
            f"levels must be a whole number from 1 to {(2**15 - 1) // max(wanted)} (for T = {max(wanted)}), not {levels!r}"
        )
    if not 0 <= potential < 1:
        raise ValueError(f"potential must lie in [0, 1), not {potential}")
    if spiking not in MODES:
        raise ValueError(f"spiking must be one of {', '.join(MODES)}, not {spiking!r}")
    return wanted


def classes_of(model: nn.Module) -> int | None:
    """How many classes a network answers with, as its library says or its last layer; None if there is none."""
    for owner, name in ((model, "num_classes"), (getattr(model, "config", None), "num_labels")):
        if isinstance(getattr(owner, name, None), int):
            return getattr(owner, name)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return layers[-1].out_features if layers else None


def logits_of(output: Any) -> Tensor:
    """The logits [B, classes] in what a classifier returns: a tensor, or an output of Hugging Face with logits.

    Raises:
        ValueError: there are none.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        return output["logits"]
    raise ValueError(f"the network returns a {type(output).__name__} without logits; give a classifier")


def functions_of(spiking: str, ranges: dict[str, float]) -> dict:
    """What stands for functions in this mode."""
    return approximations({name: reach for name, reach in ranges.items() if name in FITTED}) if spiking == "full" else {}


def _follow(converted: Converted, answer: Any, args: tuple, kwargs: dict) -> None:
    """Refuses a network that computes with what varies where `Rate` does not see it: scripted or vectorised functions, NumPy, tensors
    made of tensors, writes into memory that others read.

    Two different inputs pass in both forms, without rounding. Whoever is not told that inputs are sums over time, or means, gives
    two answers.

    Args:
        answer: to these inputs, without rounding; it must be the network's own.
    """
    found = {}
    with torch.no_grad():
        exact = _first_tensor(converted.model(*args, **kwargs))
    answer = _first_tensor(answer)
    if exact is not None and not (answer is not None and answer.shape == exact.shape and _close(exact, answer)):
        raise ValueError(
            "the network answers otherwise when its tensors are replaced by rates: something in it writes into memory that others read, "
            "or asks for the type of its input; write it without changes in place"
        )
    for form in ("means", "spikes"):
        state, outputs, calls = converted.start(form), found.setdefault(form, {}), Counter()

        def seen(module, _, output, state=state, outputs=outputs, calls=calls):
            tensors = [x for x in tree_leaves(output) if isinstance(x, Tensor) and plain(x).is_floating_point()]
            if tensors:
                name = state.path[-1] if state.path else ""
                calls[state.t, name] += 1
                key = name, calls[state.t, name]
                outputs[key] = plain(tensors[0]) + (outputs.get(key, 0) if state.form == "spikes" and state.t > 1 else 0)

        hooks = [module.register_forward_hook(seen, prepend=True) for module in converted.model.modules()]
        try:
            for change in (lambda x: x, _another):
                *inputs, named = tree_map(change, (*args, {key: x for key, x in kwargs.items() if "mask" not in key}))
                answer = converted.step(state, *inputs, **kwargs | named)
        finally:
            for hook in hooks:
                hook.remove()
        found[f"{form} answer"] = _first_tensor(answer)
    means, spikes = found["means"], {key: total / 2 for key, total in found["spikes"].items()}
    pairs = [(key[0], means[key], spikes.get(key)) for key in means] + [("", found["means answer"], found["spikes answer"])]
    for name, mean, spike in pairs:
        if spike is not None and mean.shape == spike.shape and not _close(mean, spike):
            raise ValueError(
                f"{name or 'the model itself'}: what it computes cannot be followed: scripted, compiled or vectorised (vmap) functions, "
                "tensors made of tensors, NumPy and writes into shared memory are not seen; write it in torch functions, or give its class "
                "an adapter (spikeformers.transforms.sta.adapts)"
            )


def _first_tensor(output):
    return next((x for x in tree_leaves(output) if isinstance(x, Tensor) and x.is_floating_point()), None)


def _another(x):
    """An input that differs from x and is as valid."""
    if not isinstance(x, Tensor):
        return x
    if x.is_floating_point():
        return 0.5 * x
    return x.roll(1, 0) if len(x) > 1 else x.roll(1, -1)


def _close(a, b):
    exact = torch.finfo(a.dtype).bits > 16
    return float((a - b).norm()) <= (2e-3 if exact else 0.2) * float(a.norm()) + torch.finfo(a.dtype).tiny


class _Sites:
    """Samples of what every neuron has to transmit, and the ranges of what goes into functions."""

    def __init__(self):
        self.samples: dict[str, list[Tensor]] = {}
        self.shapes: dict[str, list[int]] = {}  # of thresholds: the sizes of the axes of channels, and 1
        self.extremes: dict[str, Tensor] = {}
        self.ranges: dict[str, float] = {}
        self.generator = torch.Generator().manual_seed(0)

    def function(self, name: str, x: Tensor) -> None:
        """Sees what goes into a function."""
        self.ranges[name] = max(self.ranges.get(name, 0.0), float(x.abs().max()) if x.numel() else 0.0)

    def neuron(self, place: str, x: Tensor, axes: tuple[int, ...] | None) -> None:
        """Sees what a neuron is to transmit."""
        shape = [size if i in (axes or ()) else 1 for i, size in enumerate(x.shape)]
        if self.shapes.setdefault(place, shape) != shape:
            raise ValueError(
                f"{place} has channels {self.shapes[place]} in one calibration batch and {shape} in another; give batches of like inputs"
            )
        rows = x.movedim(axes, tuple(range(-len(axes), 0))) if axes else x[..., None]
        rows = rows.reshape(-1, max(1, torch.Size(shape).numel()))
        if not rows.isfinite().all():
            raise ValueError(f"{place} is infinite or NaN for a calibration sample; a neuron cannot transmit that")
        extremes = torch.stack([rows.amax(0), rows.amin(0)])
        if place in self.extremes:
            before = self.extremes[place]
            extremes = torch.stack([extremes[0].maximum(before[0]), extremes[1].minimum(before[1])])
        self.extremes[place] = extremes
        parts, some = self.samples.setdefault(place, []), self._some(rows)
        parts.append(some)
        if sum(map(len, parts)) > BATCHES * len(some):
            self.samples[place] = [self._some(torch.cat(parts))]

    def settle(self, others: dict[str, list[int]]) -> None:
        """Gives all samples the same threshold where an axis of channels has another size for other inputs, and all calls of a function
        where their number is another: they are a loop over samples."""
        looped = {any_call(place) for place in self.shapes.keys() ^ others.keys()} if others else set()
        groups: dict[str, list[str]] = {}
        for place in self.shapes:
            groups.setdefault(any_call(place), []).append(place)
        for name in looped & groups.keys():
            places = groups[name]
            if len({tuple(self.shapes[place]) for place in places}) == 1:
                extremes = torch.stack([self.extremes.pop(place) for place in places])
                self.extremes[name] = torch.stack([extremes[:, 0].amax(0), extremes[:, 1].amin(0)])
                self.samples[name] = [part for place in places for part in self.samples.pop(place)]
                self.shapes[name] = [self.shapes.pop(place) for place in places][0]
        for place, shape in self.shapes.items():
            other = others.get(place, shape)
            counted = [i for i, (a, b) in enumerate(zip(shape, other, strict=False)) if a != b] if len(shape) == len(other) else []
            if not counted:
                continue
            self.shapes[place] = [1 if i in counted else size for i, size in enumerate(shape)]
            rows = [i + 1 for i in counted]
            parts = [part.view(-1, *shape).movedim(rows, list(range(1, len(rows) + 1))) for part in self.samples[place]]
            self.samples[place] = [part.reshape(-1, torch.Size(self.shapes[place]).numel()) for part in parts]
            largest, smallest = self.extremes[place].view(2, *shape)
            self.extremes[place] = torch.stack([largest.amax(counted).flatten(), smallest.amin(counted).flatten()])

    def _some(self, rows):
        count = max(SAMPLES_PER_CHANNEL, SAMPLES // rows.shape[1])
        return rows if len(rows) <= count else rows[torch.randint(len(rows), (count,), generator=self.generator).to(rows.device)]

    def thresholds(self, time_steps: int, levels: int) -> dict[str, Tensor]:
        return {
            place: fit_threshold(torch.cat([*parts, MARGIN * self.extremes[place]]), time_steps, levels).view(self.shapes[place])
            for place, parts in self.samples.items()
        }


def _varies(x):
    return isinstance(x, Rate) and x.kind is not None and plain(x).is_floating_point()


def _entering(name):
    @listening
    def hook(module, args):
        if run := RUNNING.get(None):
            run.path.append(name)

    return hook


@listening
def _left(module, args, output):
    if run := RUNNING.get(None):
        run.path.pop()
