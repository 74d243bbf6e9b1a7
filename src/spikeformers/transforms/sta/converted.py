"""A converted network: the modules and weights that it had, run with spikes."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle

from ...layers.hooks import listening
from ...measure import Stepped, Tally
from . import adapters  # noqa: F401 - registers its handlers
from .approximators import FITTED, approximations, tables
from .rates import RUNNING, Rate, Run, adapt, plain


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
            with _disable_current_modes():  # an audit that follows the network must not see this check
                finite = bool(batch.isfinite().all())
            if not finite:
                raise ValueError("the input holds NaN or infinity, which spikes cannot carry")
        state.tally.samples = len(batch)
        output = state.step(self.model, args, kwargs, constant)
        number = iter(range(1 << 30))
        return tree_map(lambda x: state.mean(f"output {next(number)}", x) if _varies(x) else plain(x), output)

    def steps(
        self, *args, time_steps: int | None = None, form: str = "means", state: Run | None = None, **kwargs
    ) -> Iterator[Any]:
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
        """Thresholds, and the tables of approximated functions: tensors [...]."""
        return [*tree_leaves(self.thresholds), *tables()]

    def watch(self, watcher: Callable[[Tally], None]) -> RemovableHandle:
        """Calls a function after every batch that has run to its end, with what its neurons emitted, until `remove()` of the result."""
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
    """The approximations of functions in this mode, by name.

    Args:
        spiking: "full" or "hybrid".
        ranges: the largest magnitude that calibration saw before each kind of activation function.
    """
    return (
        approximations({name: reach for name, reach in ranges.items() if name in FITTED}) if spiking == "full" else {}
    )


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
