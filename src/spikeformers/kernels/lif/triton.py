"""The GPU implementation in Triton: the equations of integrations.py and reference.py, in their order of operations.

The kernels are bound by memory, so each thread moves 16 bytes at a time (8 for half types) and potentials stay in
registers. Backward recomputes h[t], which has to be there for all steps of a chunk before the walk back in time starts.
A chunk is at most CHUNK steps, unrolled, with its h in registers: no array of h is ever written. Usual networks have
T <= CHUNK and read every tensor once. Longer sequences first run forward once more to note v where each chunk but the
first starts: n values of scratch per chunk.

Bits: division is correctly rounded, products are not contracted into sums (enable_fp_fusion), and the constants arrive
as float64, because Triton would pass Python floats as float32, and are rounded once to the type of the integration.
"""
# Kernels are in Triton's own language, for whose tuples, loops and compile-time constants Python's types have no words:
# pyright: reportInvalidTypeForm=false, reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
# pyright: reportAssignmentType=false, reportArgumentType=false

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .dynamics import Dynamics
from .reference import compute_dtype

INTEGRATIONS = (
    "leaky",
    "leaky_full_input",
    "perfect",
)  # those that `_charge` and what stands below it know, by their numbers there
SURROGATES = ("sigmoid", "atan", "rectangle", "triangle", "erf", "softsign", "exponential")  # those that `_slope` knows
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_REAL = {torch.float32: tl.float32, torch.float64: tl.float64}
_BLOCK = {torch.float32: 512, torch.float64: 256}  # neurons per program: 16 bytes of v for each of its 128 threads
CHUNK = tl.constexpr(8)  # with 16, backward with a learnable tau runs out of registers


@triton.jit
def _over_tau(a, tau, rate, EXACT: tl.constexpr):
    """a / tau, correctly rounded. Where rate = 1 / tau is exact, the product has the same bits and costs less."""
    if EXACT:
        return a * rate
    elif a.dtype == tl.float64:
        return a / tau
    else:
        return tl.div_rn(a, tau)


@triton.jit
def _charge(x, v, tau, rate, INTEGRATION: tl.constexpr, EXACT: tl.constexpr):
    """h[t] from x[t] and v[t-1]."""
    if INTEGRATION == 0:
        return v + _over_tau(x - v, tau, rate, EXACT)
    elif INTEGRATION == 1:
        return (v - _over_tau(v, tau, rate, EXACT)) + x
    else:
        return v + x


@triton.jit
def _uncharge(grad_h, tau, rate, INTEGRATION: tl.constexpr, EXACT: tl.constexpr):
    """From the gradient of h[t] to those of x[t] and v[t-1]."""
    if INTEGRATION == 0:
        leak = _over_tau(grad_h, tau, rate, EXACT)
        return leak, grad_h - leak
    elif INTEGRATION == 1:
        return grad_h, grad_h - _over_tau(grad_h, tau, rate, EXACT)
    else:
        return grad_h, grad_h


@triton.jit
def _uncharge_tau(grad_h, x, v, tau, rate, INTEGRATION: tl.constexpr, EXACT: tl.constexpr):
    """tau times its gradient, from that of h[t]: float64."""
    if INTEGRATION == 0:
        return -(grad_h * _over_tau(x - v, tau, rate, EXACT)).to(tl.float64)
    elif INTEGRATION == 1:
        return (grad_h * _over_tau(v, tau, rate, EXACT)).to(tl.float64)
    else:
        return tl.zeros_like(grad_h).to(tl.float64)


@triton.jit
def _reset(h, threshold, SOFT: tl.constexpr):
    """v[t] from h[t]."""
    if SOFT:
        return tl.where(h >= threshold, h - threshold, h)
    else:
        return tl.where(h >= threshold, 0.0, h)


@triton.jit
def _slope(z, alpha, SURROGATE: tl.constexpr):
    """The surrogate gradient at z = h - threshold; alpha is a float64."""
    a = tl.full((), alpha, z.dtype)
    if SURROGATE == 0:
        e = tl.exp(-tl.abs(a * z))
        return a * e / ((1 + e) * (1 + e))
    elif SURROGATE == 1:
        y = tl.full((), 1.5707963267948966 * alpha, z.dtype) * z
        return (a * 0.5) / (1 + y * y)
    elif SURROGATE == 2:
        return tl.where(tl.abs(a * z) < 0.5, a, 0.0)
    elif SURROGATE == 3:
        y = 1 - tl.abs(a * z)
        return a * tl.where(y < 0, 0.0, y)
    elif SURROGATE == 4:
        y = a * z
        return tl.full((), 0.5641895835477563 * alpha, z.dtype) * tl.exp(-(y * y))
    elif SURROGATE == 5:
        y = 1 + tl.abs(a * z)
        return (a * 0.5) / (y * y)
    else:
        return (a * 0.5) * tl.exp(-tl.abs(a * z))


@triton.jit
def _load_steps(pointer, stride, at, inside, COUNT: tl.constexpr):
    """COUNT time steps, all on their way before the first one is waited for: a store in between would order them."""
    steps = ()
    for t in tl.static_range(COUNT):
        steps += (tl.load(pointer + t * stride + at, mask=inside, other=0.0),)
    return steps


@triton.jit
def _load_or_zero(pointer, at, inside, REAL: tl.constexpr, BLOCK: tl.constexpr):
    if pointer is None:
        return tl.zeros((BLOCK,), REAL)
    else:
        return tl.load(pointer + at, mask=inside, other=0.0)


@triton.jit
def _constants(tau, tau_pointer, rate, threshold, REAL: tl.constexpr):
    """tau, 1 / tau and the threshold as scalars of the compute type."""
    if tau_pointer is not None:
        tau = tl.load(tau_pointer)
    return tl.full((), tau, REAL), tl.full((), rate, REAL), tl.full((), threshold, REAL)


@triton.jit
def _forward_chunk(
    x, spikes, v, at, inside, n, x_stride, tau, rate, threshold,
    INTEGRATION: tl.constexpr, SOFT: tl.constexpr, EXACT: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """Integrates COUNT steps from x on, writes their spikes unless that is None, and returns v after them."""
    xs = _load_steps(x, x_stride, at, inside, COUNT)
    for t in tl.static_range(COUNT):
        h = _charge(xs[t].to(v.dtype), v, tau, rate, INTEGRATION, EXACT)
        if spikes is not None:
            spike = tl.where(h >= threshold, 1.0, 0.0)
            tl.store(spikes + t * n + at, spike.to(spikes.dtype.element_ty), mask=inside)
        v = _reset(h, threshold, SOFT)
    return v


@triton.jit
def _backward_chunk(
    grad_s, x, grad_x, v, grad, sum_tau, at, inside, n, grad_s_stride, x_stride, tau, rate, threshold, alpha,
    INTEGRATION: tl.constexpr, SOFT: tl.constexpr, SURROGATE: tl.constexpr, EXACT: tl.constexpr, WITH_TAU: tl.constexpr,
    COUNT: tl.constexpr,
):  # fmt: skip
    """From v before COUNT steps and the gradient of v after them to the gradient of v before them.

    Writes grad_x, and adds to sum_tau (float64, one per neuron) what makes tau times the gradient of tau.
    """
    xs = _load_steps(x, x_stride, at, inside, COUNT)
    grads = _load_steps(grad_s, grad_s_stride, at, inside, COUNT)
    befores, charged = (), ()
    for t in tl.static_range(COUNT):
        h = _charge(xs[t].to(v.dtype), v, tau, rate, INTEGRATION, EXACT)
        befores += (v,)
        charged += (h,)
        v = _reset(h, threshold, SOFT)
    for t in tl.static_range(COUNT - 1, -1, -1):
        h = charged[t]
        if not SOFT:
            grad = tl.where(h >= threshold, 0.0, grad)
        grad_h = grads[t].to(h.dtype) * _slope(h - threshold, alpha, SURROGATE) + grad
        if WITH_TAU:
            sum_tau += _uncharge_tau(grad_h, xs[t].to(h.dtype), befores[t], tau, rate, INTEGRATION, EXACT)
        grad_in, grad = _uncharge(grad_h, tau, rate, INTEGRATION, EXACT)
        tl.store(grad_x + t * n + at, grad_in.to(grad_x.dtype.element_ty), mask=inside)
    return grad, sum_tau


@triton.jit
def _forward(
    x, v, spikes, v_last, tau_pointer, n: tl.int64, x_stride: tl.int64, chunks,
    tau: tl.float64, rate: tl.float64, threshold: tl.float64,
    INTEGRATION: tl.constexpr, SOFT: tl.constexpr, EXACT: tl.constexpr, FIRST: tl.constexpr, REAL: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """FIRST steps, then `chunks` times CHUNK steps (None: no more), for BLOCK of the n neurons."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tau, rate, threshold = _constants(tau, tau_pointer, rate, threshold, REAL)
    potential = _load_or_zero(v, at, inside, REAL, BLOCK)
    potential = _forward_chunk(
        x, spikes, potential, at, inside, n, x_stride, tau, rate, threshold, INTEGRATION, SOFT, EXACT, FIRST
    )
    if chunks is not None:
        for c in range(chunks):
            t = FIRST + c * CHUNK
            potential = _forward_chunk(
                x + t * x_stride, spikes + t * n, potential, at, inside, n, x_stride, tau, rate, threshold,
                INTEGRATION, SOFT, EXACT, CHUNK,
            )  # fmt: skip
    if v_last is not None:
        tl.store(v_last + at, potential, mask=inside)


@triton.jit
def _backward(
    grad_s, grad_v, x, v, grad_x, grad_v0, sums_tau, starts, tau_pointer,
    n: tl.int64, grad_s_stride: tl.int64, x_stride: tl.int64, chunks,
    tau: tl.float64, rate: tl.float64, threshold: tl.float64, alpha: tl.float64,
    INTEGRATION: tl.constexpr, SOFT: tl.constexpr, SURROGATE: tl.constexpr, EXACT: tl.constexpr, FIRST: tl.constexpr,
    REAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The steps of `_forward` backwards. starts [chunks, n] is scratch; sums_tau has one partial sum per program."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tau, rate, threshold = _constants(tau, tau_pointer, rate, threshold, REAL)
    WITH_TAU: tl.constexpr = sums_tau is not None
    sum_tau = tl.zeros((BLOCK,), tl.float64)
    grad = _load_or_zero(grad_v, at, inside, REAL, BLOCK)
    if chunks is not None:
        potential = _load_or_zero(v, at, inside, REAL, BLOCK)
        potential = _forward_chunk(
            x, None, potential, at, inside, n, x_stride, tau, rate, threshold, INTEGRATION, SOFT, EXACT, FIRST
        )
        tl.store(starts + at, potential, mask=inside)
        for c in range(1, chunks):
            t = FIRST + (c - 1) * CHUNK
            potential = _forward_chunk(
                x + t * x_stride, None, potential, at, inside, n, x_stride, tau, rate, threshold,
                INTEGRATION, SOFT, EXACT, CHUNK,
            )  # fmt: skip
            tl.store(starts + c * n + at, potential, mask=inside)
        tl.debug_barrier()  # starts is read back, perhaps by another thread
        for i in range(chunks):
            c = chunks - 1 - i
            t = FIRST + c * CHUNK
            potential = tl.load(starts + c * n + at, mask=inside, other=0.0)
            grad, sum_tau = _backward_chunk(
                grad_s + t * grad_s_stride, x + t * x_stride, grad_x + t * n, potential, grad, sum_tau,
                at, inside, n, grad_s_stride, x_stride,
                tau, rate, threshold, alpha, INTEGRATION, SOFT, SURROGATE, EXACT, WITH_TAU, CHUNK,
            )  # fmt: skip
    potential = _load_or_zero(v, at, inside, REAL, BLOCK)
    grad, sum_tau = _backward_chunk(
        grad_s, x, grad_x, potential, grad, sum_tau, at, inside, n, grad_s_stride, x_stride,
        tau, rate, threshold, alpha, INTEGRATION, SOFT, SURROGATE, EXACT, WITH_TAU, FIRST,
    )  # fmt: skip
    if grad_v0 is not None:
        tl.store(grad_v0 + at, grad, mask=inside)
    if WITH_TAU:
        tl.store(sums_tau + tl.program_id(0), tl.sum(sum_tau, 0) / tau.to(tl.float64))


_INTERPRETED = not isinstance(_forward, triton.JITFunction)  # by NumPy on any device: TRITON_INTERPRET=1, for tests


@functools.cache
def load(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[bool, str]:
    """Whether the kernels compile and run on this device, and one sentence about it."""
    try:
        x = torch.zeros(1, 1, dtype=dtype, device=device)
        forward(x, None, Dynamics(), torch.empty_like(x), None)
    except Exception as error:  # no C compiler, an old GPU or driver: each has its own type
        why = str(error).strip().partition("\n")[0]
        return False, f"does not run here ({why}), so the slower reference runs in its place"
    return True, "interpreted" if _INTERPRETED else f"runs on {torch.cuda.get_device_name(device)}"


def supports(x: Tensor, dynamics: Dynamics, backward: bool = False) -> bool:
    """Whether this implementation takes tensors like x [T, ...] for such neurons.

    Args:
        x: input currents [T, ...].
        dynamics: of the neurons.
        backward: in the backward pass, which needs the surrogate as well.
    """
    known = dynamics.integration in INTEGRATIONS and (not backward or dynamics.surrogate in SURROGATES)
    return known and x.dtype in _DTYPES and (x.is_cuda or _INTERPRETED) and load(x.device, x.dtype)[0]


def _arguments(x: Tensor, dynamics: Dynamics) -> dict:
    """What both kernels take. A tensor tau is read by the kernel, so that nothing waits for the device."""
    tau = dynamics.tau
    learnable = isinstance(tau, Tensor)
    first = (x.shape[0] - 1) % CHUNK.value + 1
    real = compute_dtype(x.dtype)
    return {
        "x": x,
        "n": x[0].numel(),
        "x_stride": x.stride(0),
        "chunks": (x.shape[0] - first) // CHUNK.value or None,
        "tau_pointer": tau.to(x.device) if learnable else None,
        "tau": 1.0 if learnable else tau,
        "rate": 1.0 if learnable else 1 / tau,
        "threshold": dynamics.v_threshold,
        "INTEGRATION": INTEGRATIONS.index(dynamics.integration),
        "SOFT": dynamics.soft_reset,
        "EXACT": not learnable and math.frexp(tau)[0] == 0.5,  # a power of two
        "FIRST": first,
        "REAL": _REAL[real],
        "BLOCK": _BLOCK[real],
        "num_warps": 4,
        "enable_fp_fusion": False,
    }


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x[0].numel(), _BLOCK[compute_dtype(x.dtype)]),)


def forward(x: Tensor, v: Tensor | None, dynamics: Dynamics, spikes: Tensor, v_last: Tensor | None) -> None:
    """Fills spikes [T, ...] and v_last [...], all tensors laid out like x's time steps.

    Args:
        x: input currents [T, ...].
        v: potential [...] before the first step, or None for rest.
        dynamics: of the neurons.
        spikes: [T, ...], filled.
        v_last: potential [...] after the last step, filled; None if nobody wants it.
    """
    with torch.cuda.device_of(x):
        _forward[_grid(x)](v=v, spikes=spikes, v_last=v_last, **_arguments(x, dynamics))


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
    arguments = _arguments(x, dynamics)
    chunks, real = arguments["chunks"], compute_dtype(x.dtype)
    starts = None if chunks is None else torch.empty(chunks, x[0].numel(), dtype=real, device=x.device)
    sums_tau = None if grad_tau is None else torch.empty(_grid(x), dtype=torch.float64, device=x.device)
    with torch.cuda.device_of(x):
        _backward[_grid(x)](
            grad_s=grad_spikes,
            grad_s_stride=grad_spikes.stride(0),
            grad_v=grad_v,
            v=v,
            grad_x=grad_x,
            grad_v0=grad_v0,
            sums_tau=sums_tau,
            starts=starts,
            alpha=dynamics.alpha,
            SURROGATE=SURROGATES.index(dynamics.surrogate),
            **arguments,
        )
    if grad_tau is not None and sums_tau is not None:
        grad_tau.copy_(sums_tau.sum())
