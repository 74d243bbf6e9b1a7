"""The native CPU implementation: loads the compiled library and calls it on tensors. See native.c."""

import ctypes
import functools

import torch
from torch import Tensor

from .._library import load_library
from .dynamics import Dynamics

INTEGRATIONS = ("leaky", "leaky_full_input", "perfect")
"""Those that the C code of this and of other kernels knows, in the order of equation.h."""
SURROGATES = ("sigmoid", "atan", "rectangle", "triangle", "erf", "softsign", "exponential")
"""Those that native.c knows, in its order; only the backward pass needs one."""
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_REASONS = {1: "there is no memory for the pass", 2: "the kernel does not take such a call"}


class _Call(ctypes.Structure):
    """`LifCall` of native.c."""

    _fields_ = (
        [(name, ctypes.c_void_p) for name in ("x", "v", "grad_s", "grad_v", "out", "v_out", "grad_tau")]
        + [(name, ctypes.c_int64) for name in ("steps", "n", "x_stride", "grad_s_stride")]
        + [(name, ctypes.c_double) for name in ("tau", "v_threshold", "alpha")]
        + [(name, ctypes.c_int32) for name in ("integration", "soft_reset", "surrogate", "dtype", "threads")]
    )


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The fastest build that this processor runs and one sentence about it; None and the reason where there is none."""
    library, sentence = load_library(__file__)
    if library is not None:
        for function in (library.lif_forward, library.lif_backward):
            function.argtypes, function.restype = [ctypes.POINTER(_Call)], ctypes.c_int
    return library, sentence


def _library() -> ctypes.CDLL:
    library = load()[0]
    assert library is not None, "who calls has asked `supports`"
    return library


def supports(x: Tensor, dynamics: Dynamics, backward: bool = False) -> bool:
    """Whether this implementation takes tensors like x [T, ...] for such neurons.

    Args:
        x: input currents [T, ...].
        dynamics: of the neurons.
        backward: in the backward pass, which needs the surrogate as well.
    """
    known = dynamics.integration in INTEGRATIONS and (not backward or dynamics.surrogate in SURROGATES)
    return known and x.dtype in _DTYPES and load()[0] is not None


def _call(x: Tensor, v: Tensor | None, dynamics: Dynamics, **tensors: Tensor | None) -> _Call:
    pointers = {name: tensor.data_ptr() for name, tensor in {"x": x, "v": v, **tensors}.items() if tensor is not None}
    return _Call(
        **pointers,
        steps=x.shape[0],
        n=x[0].numel(),
        x_stride=x.stride(0),
        tau=float(dynamics.tau),
        v_threshold=dynamics.v_threshold,
        alpha=dynamics.alpha,
        integration=INTEGRATIONS.index(dynamics.integration),
        soft_reset=dynamics.soft_reset,
        surrogate=SURROGATES.index(dynamics.surrogate) if dynamics.surrogate in SURROGATES else 0,
        dtype=_DTYPES[x.dtype],
        threads=torch.get_num_threads(),
    )


def _carry_out(function, call: _Call) -> None:
    if why := function(ctypes.byref(call)):
        kind = MemoryError if why == 1 else ValueError
        raise kind(f"{_REASONS[why]}: {call.steps} time steps of {call.n} neurons on {call.threads} threads")


def forward(x: Tensor, v: Tensor | None, dynamics: Dynamics, spikes: Tensor, v_last: Tensor | None) -> None:
    """Fills spikes [T, ...] and v_last [...], all tensors laid out like x's time steps.

    Args:
        x: input currents [T, ...].
        v: potential [...] before the first step, or None for rest.
        dynamics: of the neurons.
        spikes: [T, ...], filled.
        v_last: potential [...] after the last step, filled; None if nobody wants it.
    """
    call = _call(x, v, dynamics, out=spikes, v_out=v_last)
    _carry_out(_library().lif_forward, call)


def backward(
    grad_spikes: Tensor,
    grad_v: Tensor | None,
    x: Tensor,
    v: Tensor | None,
    dynamics: Dynamics,
    grad_x: Tensor,
    grad_v0: Tensor | None,
    grad_tau: Tensor | None,
) -> None:
    """Fills grad_x [T, ...], grad_v0 [...] and grad_tau [], all tensors laid out like x's time steps.

    Args:
        grad_spikes: [T, ...].
        grad_v: of the potential after the last step [...], or None for zeros.
        x: input currents [T, ...].
        v: potential [...] before the first step, or None for rest.
        dynamics: of the neurons.
        grad_x: [T, ...], filled.
        grad_v0: of the potential before the first step [...], filled unless None.
        grad_tau: [], filled unless None.
    """
    call = _call(x, v, dynamics, grad_s=grad_spikes, grad_v=grad_v, out=grad_x, v_out=grad_v0)
    call.grad_s_stride = grad_spikes.stride(0)
    partial = None if grad_tau is None else torch.zeros(call.threads, dtype=torch.float64, device="cpu")
    call.grad_tau = None if partial is None else partial.data_ptr()
    _carry_out(_library().lif_backward, call)
    if grad_tau is not None and partial is not None:
        grad_tau.copy_(partial.sum())
