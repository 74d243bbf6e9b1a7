"""What a neuron does with its input, as one object: neurons hold it, and all implementations take it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .integrations import INTEGRATIONS, Arithmetic, Integration
from .surrogates import SURROGATES, surrogate_name

RESETS = ("hard", "soft")

FLAT = (
    "Tensor? tau_parameter, float tau, int integration, float v_threshold, bool soft_reset, int surrogate, float alpha"
)
"""A `Dynamics` among the arguments of an operation of torch's: what `flat` gives and `restored` takes."""


@dataclass(frozen=True)
class Dynamics:
    """How a neuron integrates, fires and resets.

    Attributes:
        integration: name of one of INTEGRATIONS.
        tau: membrane time constant in time steps, >= 1; a 0-d tensor where it is learnt; of neurons without leak nobody reads it.
        v_threshold: firing threshold, > 0; reaching it exactly fires.
        reset: "hard" (to 0) or "soft" (by subtraction); no gradient flows through either.
        surrogate: name of one of SURROGATES, whose slope stands in for the step's derivative.
        alpha: its sharpness, to which its peak is proportional; None means the customary one.

    Raises:
        ValueError: there is no such integration, reset or surrogate, or a constant is out of range.
    """

    integration: str = "leaky"
    tau: float | Tensor = 2.0
    v_threshold: float = 1.0
    reset: str = "hard"
    surrogate: str = "sigmoid"
    alpha: float | None = None

    def __post_init__(self):
        for what, name, known in (
            ("integration", self.integration, INTEGRATIONS),
            ("reset", self.reset, RESETS),
        ):
            if name not in known:
                choices = " or ".join(map(repr, RESETS)) if what == "reset" else f"one of {', '.join(known)}"
                raise ValueError(f"{what} must be {choices}, not {name!r}")
        surrogate_name(self.surrogate)
        if isinstance(self.tau, Tensor):
            if self.tau.ndim or not self.tau.is_floating_point():
                raise ValueError(
                    f"a learnable tau must be a 0-d tensor of floating-point numbers, not {tuple(self.tau.shape)} of {self.tau.dtype}"
                )
        elif not self.tau >= 1:
            raise ValueError(f"tau must be at least 1 time step, or None for no leak, not {self.tau}")
        if not self.v_threshold > 0:
            raise ValueError(f"v_threshold must be positive, not {self.v_threshold}")
        if self.alpha is None:
            object.__setattr__(self, "alpha", SURROGATES[self.surrogate].alpha)
        elif not self.alpha > 0 or self.alpha == math.inf:
            raise ValueError(f"alpha must be positive{' and finite' * (self.alpha == math.inf)}, not {self.alpha}")

    @classmethod
    def of(cls, tau: float | Tensor | None = 2.0, *, decay_input: bool = True, **constants: Any) -> "Dynamics":
        """Of neurons that leak, or do not where tau is None.

        Args:
            tau: membrane time constant in time steps, or None.
            decay_input: whether the leak divides the input as well.
            constants: v_threshold, reset, surrogate and alpha.
        """
        if tau is None:
            return cls("perfect", 1.0, **constants)
        return cls("leaky" if decay_input else "leaky_full_input", tau, **constants)

    @property
    def equation(self) -> Integration:
        """How it charges."""
        return INTEGRATIONS[self.integration]

    @property
    def soft_reset(self) -> bool:
        return self.reset == "soft"

    @property
    def learnt(self) -> bool:
        """Whether tau is a tensor."""
        return isinstance(self.tau, Tensor)

    @property
    def time_constant(self) -> float | Tensor | None:
        """tau, or None without leak."""
        return self.tau if self.equation.leaks else None

    @property
    def arithmetic(self) -> Arithmetic:
        """What a neuron is charged for a time step."""
        return self.equation.arithmetic

    @property
    def silent_at_rest(self) -> bool:
        """Whether a neuron at rest that receives nothing stays at rest, so that where nothing arrives nothing needs to be computed."""
        zero, tau = torch.zeros(()), torch.as_tensor(self.tau, dtype=torch.float32)
        return not bool(self.equation.charge(zero, zero, tau))

    def scaled(self, factor: float) -> "Dynamics | None":
        """What makes of x from rest what this makes of `factor` * x, the gradient included; None where integration is not linear.

        LIF(a x, th) = LIF(x, th / a), with either reset and any leak: all potentials are proportional to the input. The surrogate's
        argument alpha (h - th) stays the same if alpha grows by a.
        """
        if not self.equation.homogeneous:
            return None
        assert self.alpha is not None, "it was set"
        return replace(self, v_threshold=self.v_threshold / factor, alpha=self.alpha * factor)

    def flat(self) -> tuple[Tensor | None, float, int, float, bool, int, float]:
        """As the arguments FLAT: a learnt tau as a tensor [], everything else as plain numbers."""
        tau = self.tau
        parameter, number = (tau, 1.0) if isinstance(tau, Tensor) else (None, float(tau))
        integration, surrogate = [*INTEGRATIONS].index(self.integration), [*SURROGATES].index(self.surrogate)
        assert self.alpha is not None, "it was set"
        return parameter, number, integration, float(self.v_threshold), self.soft_reset, surrogate, float(self.alpha)

    @classmethod
    def restored(cls, flat: Sequence[Any]) -> "Dynamics":
        """What `flat` was made of.

        Raises:
            ValueError: there is no integration or surrogate of that number, or as for the class.
        """
        tau_parameter, tau, integration, v_threshold, soft_reset, surrogate, alpha = flat
        if not 0 <= integration < len(INTEGRATIONS) or not 0 <= surrogate < len(SURROGATES):
            raise ValueError(f"there is no integration number {integration} or no surrogate number {surrogate}")
        return cls(
            [*INTEGRATIONS][integration],
            tau if tau_parameter is None else tau_parameter,
            v_threshold,
            RESETS[soft_reset],
            list(SURROGATES)[surrogate],
            alpha,
        )
