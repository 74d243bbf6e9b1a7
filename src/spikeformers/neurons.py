"""Spiking neurons as modules: they hold constants, and their learnable ones, and call the kernel. No state is kept."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Generic, Self, TypeVar, cast, overload

import torch
from torch import Tensor, nn

from ._arguments import Positive, checked
from .kernels.lif import Arithmetic, Dynamics, run, surrogate_name

Value = TypeVar("Value")


class _Constant(Generic[Value]):
    """An attribute of a neuron that lies in its dynamics. It can be set, and is checked then."""

    def __set_name__(self, owner: type, name: str):
        self.name = name

    @overload
    def __get__(self, neuron: None, owner: type) -> Self: ...
    @overload
    def __get__(self, neuron: "Neuron", owner: type) -> Value: ...
    def __get__(self, neuron: "Neuron | None", owner: type) -> Value | Self:
        return self if neuron is None else getattr(neuron.constants, self.name)

    def __set__(self, neuron: "Neuron", value: Value) -> None:
        neuron.constants = replace(neuron.constants, **{self.name: value})


class Neuron(nn.Module):
    """Base of all spiking neurons: forward takes input currents [T, ...] from rest and returns spikes [T, ...].

    A forward hook on a Neuron sees its spikes, so the hook's `output.mean()` is its firing rate.

    What a neuron does is its `dynamics`, which the kernels carry out and which says whatever else is asked: how it scales, what it costs. A
    subclass with another equation overrides `forward` (and `run`, if its state is wanted) in PyTorch; profiles count it as a neuron once it
    says what it computes, by `arithmetic`.

    Args:
        v_threshold: firing threshold, > 0; reaching it exactly fires.
        integration: how it charges, one of `kernels.lif.INTEGRATIONS`.
        tau: membrane time constant in time steps, >= 1; for integrations with leak.
        reset: "hard" (to 0) or "soft" (by subtraction).
        surrogate: "sigmoid", "atan", "rectangle", "triangle", "erf", "softsign" or "exponential", or a function u -> slope of
            u = alpha * (h - v_threshold); see `kernels.lif.register_surrogate`.
        alpha: sharpness of the surrogate; None means the customary one.

    Attributes:
        constants: the dynamics as far as they are no parameters.

    Raises:
        ValueError: a constant that is out of range, or no such integration, reset or surrogate.
    """

    @checked
    def __init__(
        self,
        v_threshold: float = 1.0,
        *,
        integration: str = "leaky",
        tau: float = 1.0,
        reset: str = "hard",
        surrogate: str | Callable[[Tensor], Tensor] = "sigmoid",
        alpha: Positive | None = None,
    ):
        super().__init__()
        self.constants = Dynamics(integration, tau, v_threshold, reset, surrogate_name(surrogate), alpha)

    @property
    def dynamics(self) -> Dynamics:
        """What the kernels carry out: the constants, with the time constant that a subclass or a parameter gives."""
        tau = self.time_constant()
        if tau is None:
            return (
                replace(self.constants, integration="perfect", tau=1.0)
                if self.constants.equation.leaks
                else self.constants
            )
        return (
            replace(self.constants, tau=tau) if isinstance(tau, Tensor) or tau != self.constants.tau else self.constants
        )

    def time_constant(self) -> float | Tensor | None:
        """tau in time steps, a number or, where it is learnt, a tensor []; None for neurons without leak."""
        return self.constants.time_constant

    v_threshold = _Constant[float]()
    reset = _Constant[str]()
    surrogate = _Constant[str]()
    alpha = _Constant[float]()

    @property
    def in_kernel(self) -> bool:
        """Whether the kernels carry out its dynamics; a subclass with a forward of its own may do something else."""
        return type(self).forward is Neuron.forward and type(self).run is Neuron.run

    def arithmetic(self) -> Arithmetic | None:
        """What one neuron is charged for a time step; None leaves it to profiles to look at its operators one by one."""
        return self.constants.arithmetic if self.in_kernel else None

    def behind_scale(self, scale: float) -> "Neuron | None":
        """A neuron that makes of x what this one makes of scale * x, the gradient included; None if there is none, or it is not known."""
        scaled = self.constants.scaled(scale) if self.in_kernel else None
        if scaled is None:
            return None
        neuron = copy.deepcopy(self)
        neuron.constants = scaled
        return neuron

    def run(self, x: Tensor, v: Tensor | None = None, *, return_v: bool = True) -> tuple[Tensor, Tensor]:
        """Spikes [T, ...] and the membrane potential [...] after the last step.

        Args:
            x: input currents [T, ...].
            v: potential [...] before the first step; rest if None.
            return_v: whether the potential is wanted; if not, it is empty.
        """
        return run(x, v, self.dynamics, return_v=return_v)

    def forward(self, x: Tensor) -> Tensor:
        """[T, ...] -> spikes [T, ...], from rest."""
        return self.run(x, return_v=False)[0]

    def extra_repr(self) -> str:
        return f"v_threshold={self.v_threshold}, reset={self.reset!r}, surrogate={self.surrogate!r}, alpha={self.alpha}"


class LIF(Neuron):
    """Leaky integrate-and-fire: h[t] = v[t-1] + (x[t] - v[t-1]) / tau. See `kernels.lif.lif`.

    Args:
        tau: membrane time constant in time steps, >= 1.
        decay_input: whether the leak divides the input as well; if not, h[t] = (v[t-1] - v[t-1] / tau) + x[t].
        v_threshold, reset, surrogate, alpha: as for `Neuron`.

    Raises:
        ValueError: tau below 1, or as for `Neuron`.
    """

    @checked
    def __init__(self, tau: float = 2.0, v_threshold: float = 1.0, *, decay_input: bool = True, **kwargs):
        super().__init__(v_threshold, integration="leaky" if decay_input else "leaky_full_input", tau=tau, **kwargs)

    tau = _Constant[float]()

    @property
    def decay_input(self) -> bool:
        return self.constants.integration == "leaky"

    def extra_repr(self) -> str:
        return f"tau={self.tau}, decay_input={self.decay_input}, {super().extra_repr()}"


class PLIF(LIF):
    """LIF whose time constant is learnt: 1 / tau = sigmoid(w) (Fang et al., ICCV 2021, eq. 9). `tau` is the initial value, > 1.

    Raises:
        ValueError: a tau that is not above 1, or as for `LIF`.
    """

    def __init__(self, tau: float = 2.0, v_threshold: float = 1.0, **kwargs):
        super().__init__(tau, v_threshold, **kwargs)
        if not tau > 1:
            raise ValueError(f"the initial tau of a PLIF must be above 1 time step, not {tau}")
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1)))

    def time_constant(self) -> Tensor:
        return 1 + torch.exp(-self.w)


class IF(Neuron):
    """Integrate-and-fire without leak: h[t] = v[t-1] + x[t]. Arguments as for `Neuron`, but for integration and tau."""

    @checked
    def __init__(self, v_threshold: float = 1.0, **kwargs):
        super().__init__(v_threshold, integration="perfect", **kwargs)


class MLF(nn.Module):
    """Multi-level firing: LIF neurons of different thresholds on the same input (Feng et al., IJCAI 2022).

    Every level has a membrane and a reset of its own; the output is the sum of their spikes, an integer 0 .. number of levels. A
    convolution behind it therefore reads integers, each worth as many additions as levels fired. The levels are the `LIF` modules in
    `levels`, so hooks, firing rates and profiles know each of them.

    The defaults are the paper's u[t] = 0.25 u[t-1] (1 - s[t-1]) + x[t], which is a tau of 4/3 whose leak spares the input, and a surrogate
    of width 1 around every threshold. Unlike there, meeting a threshold exactly fires, as everywhere in this library, and no gradient
    flows through the reset. The paper's batch normalisation, whose gain starts at the first threshold, is left out.

    Args:
        tau: membrane time constant of all levels in time steps, >= 1.
        thresholds: of the levels, at least one, in units of the input.
        decay_input, surrogate, reset, alpha: as for `LIF`, the same for all levels.

    Raises:
        ValueError: no threshold, or a constant that `LIF` does not take.
    """

    @checked
    def __init__(
        self,
        tau: float = 4 / 3,
        thresholds: Sequence[float] = (0.6, 1.6, 2.6),
        *,
        decay_input: bool = False,
        surrogate: str = "rectangle",
        **kwargs,
    ):
        super().__init__()
        if not thresholds:
            raise ValueError("thresholds needs at least one value, one for each level")
        levels = [
            LIF(tau, threshold, decay_input=decay_input, surrogate=surrogate, **kwargs) for threshold in thresholds
        ]
        self.levels = cast(Sequence[LIF], nn.ModuleList(levels))  # torch does not say of what a list consists

    def run(self, x: Tensor, v: Sequence[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Sums of spikes [T, ...] and each level's membrane potential [...] after the last step, starting from v or from rest."""
        states = [None] * len(self.levels) if v is None else v
        results = [level.run(x, state) for level, state in zip(self.levels, states, strict=True)]
        return reduce(torch.add, [spikes for spikes, _ in results]), [after for _, after in results]

    def forward(self, x: Tensor) -> Tensor:
        """[T, ...] -> sums of spikes [T, ...] in {0, 1, .. levels}, from rest."""
        return reduce(torch.add, [level(x) for level in self.levels])


KINDS = {"lif": LIF, "mlf": MLF}


def maker(kind: str, **constants) -> Callable[[], nn.Module]:
    """What makes the neurons of a network: `LIF` ("lif") or `MLF` ("mlf") with these constants, None standing for their defaults.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"neuron must be one of {', '.join(KINDS)}, not {kind!r}")
    return partial(KINDS[kind], **{name: value for name, value in constants.items() if value is not None})
