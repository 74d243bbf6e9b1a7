"""The spiking neurons in plain PyTorch: what every other implementation has to reproduce, bit by bit. How they charge: integrations.py.

Shapes: x [T, ...] input current; v [...] membrane potential; T time steps on axis 0, everything else is element-wise.
Half-precision inputs are integrated in float32, and the membrane potential of half-precision inputs is float32.
"""

from dataclasses import replace

import torch
from torch import Tensor

from .dynamics import Dynamics
from .surrogates import SURROGATES


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which the membrane potential is integrated: float64 for float64, otherwise float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def surrogate_gradient(z: Tensor, dynamics: Dynamics) -> Tensor:
    """The gradient used in place of the Heaviside step's, at z = h - v_threshold [...]."""
    assert dynamics.alpha is not None, "it was set"
    return SURROGATES[dynamics.surrogate].slope(z, dynamics.alpha)


def _fire(h: Tensor, threshold: Tensor, soft_reset: bool) -> tuple[Tensor, Tensor]:
    """(s[t], v[t]) from h[t]: whether it fires, and the potential after the reset."""
    fires = h >= threshold
    return fires, torch.where(fires, h - threshold, h) if soft_reset else h.masked_fill(fires, 0)


def _constants(x: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """tau and the threshold as 0-d tensors: dividing by a Python number multiplies by its rounded reciprocal on CUDA."""
    dtype = compute_dtype(x.dtype)
    as_tensor = lambda value: torch.as_tensor(value, dtype=dtype, device=x.device)  # noqa: E731
    return as_tensor(dynamics.tau), as_tensor(dynamics.v_threshold)


def _rest(x: Tensor, v: Tensor | None) -> Tensor:
    dtype = compute_dtype(x.dtype)
    return torch.zeros_like(x[0], dtype=dtype) if v is None else v.to(dtype)


def lif_forward(x: Tensor, v: Tensor | None, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes [T, ...] in x's dtype and the membrane potential [...] after the last step.

    Args:
        x: input currents [T, ...].
        v: potential [...] before the first step, or None for rest.
        dynamics: of the neurons.
    """
    tau, threshold = _constants(x, dynamics)
    v, charge = _rest(x, v), dynamics.equation.charge
    spikes = torch.empty_like(x)
    for t in range(x.shape[0]):
        fires, v = _fire(charge(x[t].to(v.dtype), v, tau), threshold, dynamics.soft_reset)
        spikes[t] = fires
    return spikes, v


def lif_backward(
    grad_spikes: Tensor, grad_v: Tensor | None, x: Tensor, v: Tensor | None, dynamics: Dynamics
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [T, ...], of the initial potential [...] and of tau [] (0 for a constant tau), recomputing h from x.

    No gradient flows through the reset: for the hard one dv[t]/dh[t] = 1 - s[t], for the soft one it is 1.

    Args:
        grad_spikes: [T, ...].
        grad_v: of the potential after the last step [...], or None for zeros.
        x: input currents [T, ...].
        v: potential [...] before the first step, or None for rest.
        dynamics: of the neurons.
    """
    equation, charge = dynamics.equation, dynamics.equation.charge
    tau, threshold = _constants(x, dynamics)
    before, charged = [], []  # v[t-1] and h[t]
    v = _rest(x, v)
    for t in range(x.shape[0]):
        before.append(v)
        charged.append(charge(x[t].to(v.dtype), v, tau))
        v = _fire(charged[t], threshold, dynamics.soft_reset)[1]
    grad_x = torch.empty_like(x)
    grad = torch.zeros_like(v) if grad_v is None else grad_v.to(v.dtype)  # of v[t]
    grad_tau = torch.zeros((), dtype=v.dtype, device=x.device)
    for t in reversed(range(x.shape[0])):
        h = charged[t]
        slope = surrogate_gradient(h - threshold, dynamics)
        through_reset = grad if dynamics.soft_reset else grad.masked_fill(h >= threshold, 0)
        grad_h = grad_spikes[t].to(v.dtype) * slope + through_reset
        step = grad_h, x[t].to(v.dtype), before[t], tau
        if dynamics.learnt:
            grad_tau += equation.back_to_tau(*step)
        grad_x[t], grad = equation.back(*step)
    return grad_x, grad, grad_tau


class _Step(torch.autograd.Function):
    """1 where h reaches the threshold, 0 elsewhere; its derivative, in both directions and of any order, is that of the surrogate."""

    generate_vmap_rule = True

    @staticmethod
    def forward(h, threshold, dynamics):
        return (h >= threshold).to(h.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        h, threshold, ctx.dynamics = inputs
        ctx.save_for_backward(h, threshold)
        ctx.save_for_forward(h, threshold)

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]  torch gives as many as there are outputs
        h, threshold = ctx.saved_tensors
        return grad * surrogate_gradient(h - threshold, ctx.dynamics), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):  # pyright: ignore[reportIncompatibleMethodOverride]  torch gives as many as there are inputs
        h, threshold = ctx.saved_tensors
        return tangent * surrogate_gradient(h - threshold, ctx.dynamics)


def composed(x: Tensor, v: Tensor | None, dynamics: Dynamics, differentiable: bool = True) -> tuple[Tensor, Tensor]:
    """`lif_forward` of x [T, ...] out of standard operators that nothing is written into: what torch transforms (forward-mode derivatives, vmap,
    derivatives of derivatives), and what exporters get.

    Args:
        differentiable: whether the step has the surrogate's derivative; if not, it is a comparison.

    Raises:
        ValueError: T is a symbol, that is dynamic in an export, and cannot be unrolled.
    """
    if isinstance(x.shape[0], torch.SymInt):
        raise ValueError(
            "time steps are unrolled here, so their number must be fixed: export with a static T; other axes may be dynamic"
        )
    dtype = compute_dtype(x.dtype)
    threshold = torch.full((), dynamics.v_threshold, dtype=dtype, device=x.device)
    tau = dynamics.tau
    tau = tau.to(x.device, dtype) if isinstance(tau, Tensor) else torch.full((), tau, dtype=dtype, device=x.device)
    v = torch.zeros_like(x[0], dtype=dtype) if v is None else v.to(dtype)
    spikes, constants = (
        [],
        replace(dynamics, tau=1.0),
    )  # the step asks for no tau, which may be a tensor that torch.func wraps
    for current in x.unbind(0):
        h = dynamics.equation.charge(current.to(dtype), v, tau)
        fires = h >= threshold
        spike = _Step.apply(h, threshold, constants) if differentiable else fires
        spikes.append(spike.to(x.dtype))
        v = torch.where(fires, h - threshold if dynamics.soft_reset else torch.zeros_like(h), h)
    return torch.stack(spikes), v


class _LIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, v, tau, dynamics):
        ctx.save_for_backward(x, v, tau)
        ctx.dynamics = replace(dynamics, tau=1.0) if dynamics.learnt else dynamics
        return lif_forward(x, v, dynamics)

    @staticmethod
    def backward(ctx, grad_spikes, grad_v):  # pyright: ignore[reportIncompatibleMethodOverride]  torch gives as many as there are outputs
        x, v, tau = ctx.saved_tensors
        dynamics = ctx.dynamics if tau is None else replace(ctx.dynamics, tau=tau)
        grad_x, grad_v0, grad_tau = lif_backward(grad_spikes, grad_v, x, v, dynamics)
        return grad_x, None if v is None else grad_v0, None if tau is None else grad_tau, None


def lif(x: Tensor, v: Tensor | None, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Differentiable form of `lif_forward` that keeps nothing but its inputs for the backward pass.

    Args:
        x: input currents [T, ...].
        v: potential [...] before the first step, or None for rest.
        dynamics: of the neurons.

    Returns:
        Spikes [T, ...] and the potential [...] after the last step.
    """
    return _LIF.apply(x, v, dynamics.tau if dynamics.learnt else None, dynamics)
