"""Leaky integrate-and-fire neurons over T time steps: the public operation, and which implementation serves which device."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._decomp import register_decomposition
from torch.autograd import forward_ad

from . import native, reference
from .dynamics import FLAT, Dynamics
from .integrations import INTEGRATIONS, Arithmetic, Integration
from .reference import compute_dtype
from .surrogates import SURROGATES, Surrogate, register_surrogate, surrogate_name

try:
    from . import triton
except ImportError:
    triton = None

__all__ = [
    "INTEGRATIONS",
    "SURROGATES",
    "Arithmetic",
    "Dynamics",
    "Integration",
    "Surrogate",
    "decompositions",
    "is_emitted",
    "lif",
    "surrogate_name",
    "register_surrogate",
    "run",
    "status",
]


def lif(
    x: Tensor,
    v: Tensor | None = None,
    *,
    tau: float | Tensor | None = 2.0,
    v_threshold: float = 1.0,
    decay_input: bool = True,
    reset: str = "hard",
    surrogate: str | Callable[[Tensor], Tensor] = "sigmoid",
    alpha: float | None = None,
    return_v: bool = True,
) -> tuple[Tensor, Tensor]:
    """Leaky integrate-and-fire neurons over T time steps, starting from v or from rest.

    h[t] = v[t-1] + (x[t] - v[t-1]) / tau;  s[t] = 1 if h[t] >= v_threshold else 0;  v[t] = h[t] * (1 - s[t])

    Without `decay_input`, h[t] = (v[t-1] - v[t-1] / tau) + x[t]; without leak (tau None: IF), h[t] = v[t-1] + x[t]. The soft
    reset is v[t] = h[t] - s[t] * v_threshold. The operations are evaluated in exactly this order on every device, so spikes
    are bit-equal across implementations. Only x and v are kept for the backward pass, which recomputes h.

    A neuron whose potential is NaN does not fire, for NaN reaches no threshold, and its potential stays NaN: what was not a number before
    it is silence behind it, on every device. Forward-mode derivatives and torch.func's transforms are computed from standard operators,
    more slowly; second derivatives, of the surrogate, exist there alone.

    Args:
        x: input current [T, ...], dimensionless (units of v_threshold); float16 and bfloat16 are integrated in float32.
        v: membrane potential before the first step [...]; rest (0) if None.
        tau: membrane time constant in time steps, >= 1; a 0-d tensor makes it learnable (PLIF); None means no leak. A tensor on a GPU
            is not looked at, as that would wait for the GPU: there it is up to the caller (PLIF's 1 + exp(-w) is never below 1).
        v_threshold: firing threshold, > 0; reaching it exactly fires.
        decay_input: whether the leak divides the input as well.
        reset: "hard" (to 0) or "soft" (by subtraction); no gradient flows through either.
        surrogate: "sigmoid", "atan", "rectangle", "triangle", "erf", "softsign" or "exponential": whose derivative, of unit area, replaces
            the step's. Or a function u -> slope of u = alpha * (h - v_threshold), see `register_surrogate`.
        alpha: sharpness of the surrogate; None means the customary one, SURROGATES[surrogate].alpha.
        return_v: whether the potential after the last step is wanted; if not, an empty tensor stands in its place.

    Returns:
        Spikes [T, ...] in {0, 1} with x's dtype, and the membrane potential [...] after the last step (float32 for half types).

    Raises:
        ValueError: x has no time axis, v's shape is not x's without it or its device another, or a constant is out of range.
    """
    constants = {"v_threshold": v_threshold, "reset": reset, "surrogate": surrogate_name(surrogate), "alpha": alpha}
    return run(x, v, Dynamics.of(tau, decay_input=decay_input, **constants), return_v=return_v)


def run(x: Tensor, v: Tensor | None, dynamics: Dynamics, *, return_v: bool = True) -> tuple[Tensor, Tensor]:
    """Neurons of these dynamics over T time steps; `lif` says more.

    Args:
        x: input current [T, ...].
        v: membrane potential before the first step [...]; rest (0) if None.
        dynamics: how they integrate, fire and reset.
        return_v: whether the potential after the last step is wanted; if not, an empty tensor stands in its place.

    Returns:
        Spikes [T, ...] in {0, 1} with x's dtype, and the membrane potential [...] after the last step (float32 for half types).

    Raises:
        ValueError: x has no time axis, or v's shape is not x's without it or its device another.
    """
    _check_tensors(x, v)
    if _is_transformed(x, v, dynamics.tau):
        spikes, v = reference.composed(x, v, dynamics)
        return spikes, v if return_v else v.new_empty(0)
    return torch.ops.spikeformers.lif(x, v, *dynamics.flat(), return_v)


def is_emitted(x: Tensor) -> bool:
    """Whether x [T, ...] is what neurons emitted, not changed since; where autograd does not record, nobody knows."""
    return getattr(x.grad_fn, _EMITTED, None) == x.output_nr and x._version == 0


def decompositions() -> dict:
    """The table for `torch.export.ExportedProgram.run_decompositions` that leaves standard operators only, this operation's included.

    `torch.onnx.export(dynamo=True)` finds this operation's by itself. T is unrolled, so it must be fixed; other axes need not be.
    """
    table = torch.export.default_decompositions()
    table[torch.ops.spikeformers.lif.default] = _decomposed
    return table


def status() -> list[tuple[str, bool, str]]:
    """What is live on this machine: (implementation, whether it runs here, why or why not and what to do)."""
    library, sentence = native.load()
    gpu: tuple[bool, str]
    if triton is None:
        gpu = (False, "triton is not installed; on a machine with an NVIDIA GPU: pip install triton")
    elif not torch.cuda.is_available():
        gpu = (False, "installed, but torch sees no GPU")
    else:
        gpu = triton.load(torch.device("cuda"))
    return [
        ("reference", True, "plain PyTorch, any device"),
        ("native", library is not None, sentence),
        ("triton", gpu[0], gpu[1]),
    ]


# The operations as torch sees them. All implementations fill outputs that are laid out like x's time steps, so memory formats
# such as channels_last pass through without a copy and an input that is expanded over T is read in place.


def _steps(x: Tensor) -> Tensor:
    """x itself if every time step is gap-free memory, otherwise a contiguous copy. T may be expanded (stride 0)."""
    step = x[0]
    dense = step.is_contiguous() or (step.ndim == 4 and step.is_contiguous(memory_format=torch.channels_last))
    return x if dense else x.contiguous()


def _empty(x: Tensor) -> Tensor:
    """Uninitialised [T, ...]: x's shape and type, its steps one after the other."""
    return x.new_empty_strided(x.shape, (x[0].numel(), *x[0].stride()))


def _empty_v(x: Tensor, wanted: bool = True) -> Tensor:
    """Uninitialised potential [...] laid out like one time step of x, or an empty tensor."""
    dtype = compute_dtype(x.dtype)
    return x.new_empty_strided(x.shape[1:], x[0].stride(), dtype=dtype) if wanted else x.new_empty(0, dtype=dtype)


def _laid_out_like(tensor: Tensor | None, step: Tensor, dtype: torch.dtype) -> Tensor | None:
    """`tensor` ([T, ...] or [...]) in one step's memory order and the given type; copied only if it is not yet."""
    if tensor is None:
        return None
    inner = tensor[0] if tensor.ndim > step.ndim else tensor
    if inner.stride() == step.stride() and tensor.dtype == dtype:
        return tensor
    strides = (step.numel(), *step.stride()) if tensor.ndim > step.ndim else step.stride()
    return tensor.new_empty_strided(tensor.shape, strides, dtype=dtype).copy_(tensor)


def _check_tensors(x: Tensor, v: Tensor | None) -> None:
    if x.ndim < 1 or x.shape[0] < 1 or not x.is_floating_point():
        raise ValueError(f"x must be a floating-point tensor [T, ...] with T >= 1, not {tuple(x.shape)} of {x.dtype}")
    if v is not None and v.shape != x.shape[1:]:
        raise ValueError(f"v must have x's shape without the time axis, {tuple(x.shape[1:])}, not {tuple(v.shape)}")
    if v is not None and v.device != x.device:
        raise ValueError(f"x is on {x.device} and v on {v.device}; move v with v.to(x.device)")
    if v is not None and v.is_complex():
        raise ValueError(f"v must be real, not {v.dtype}")


def _restored(x: Tensor, v: Tensor | None, call: Sequence) -> Dynamics:
    """The neurons' dynamics, of the operation as torch has it, which anybody may call.

    Raises:
        ValueError: arguments that `lif` would not pass on.
    """
    _check_tensors(x, v)
    tau, *rest = call
    if any(forward_ad.unpack_dual(z).tangent is not None for z in (x, v, tau) if z is not None):
        raise RuntimeError(
            "torch.ops.spikeformers.lif has no forward-mode derivative; spikeformers.kernels.lif.lif has"
        )
    if tau is not None and tau.device.type == "cpu" and tau.numel() == 1 and not float(tau) >= 1:
        raise ValueError(f"tau must be at least 1 time step, not {float(tau)}; 1 + exp(-w) of a parameter w always is")
    return Dynamics.restored((tau if tau is None else tau.detach(), *rest))


def _is_transformed(x: Tensor, v: Tensor | None, tau: Tensor | float | None) -> bool:
    """Whether torch.func or forward-mode differentiation is at work, which see through standard operators only."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._functorch.maybe_current_level() is not None:  # pyright: ignore[reportAttributeAccessIssue]  torch's stubs lack it
        return True
    return any(isinstance(z, Tensor) and forward_ad.unpack_dual(z).tangent is not None for z in (x, v, tau))


class _Reference:
    """The reference behind the interface of the fast implementations: outputs are given."""

    @staticmethod
    def forward(x, v, dynamics, spikes, v_last):
        s, v = reference.lif_forward(x, v, dynamics)
        spikes.copy_(s)
        if v_last is not None:
            v_last.copy_(v)

    @staticmethod
    def backward(grad_spikes, grad_v, x, v, dynamics, grad_x, grad_v0, grad_tau):
        results = reference.lif_backward(grad_spikes, grad_v, x, v, dynamics)
        for out, result in zip((grad_x, grad_v0, grad_tau), results, strict=True):
            if out is not None:
                out.copy_(result)


def _forward_with(choose):
    """The kernel of `spikeformers::lif` for one device type; choose(x, dynamics, backward) picks the implementation."""

    def kernel(x, v, *call) -> tuple[Tensor, Tensor]:
        *flat, return_v = call
        dynamics = _restored(x, v, flat)
        x = _steps(x)
        spikes, v_last = _empty(x), _empty_v(x, return_v)
        if x.numel():
            v = _laid_out_like(v, x[0], v_last.dtype)
            choose(x, dynamics).forward(x, v, dynamics, spikes, v_last if return_v else None)
        return spikes, v_last

    return kernel


def _backward_with(choose):
    """The kernel of `spikeformers::lif_backward` for one device type."""

    def kernel(grad_spikes, grad_v, x, v, *flat) -> tuple[Tensor, Tensor, Tensor]:
        dynamics = _restored(x, v, flat)
        for grad, shape in ((grad_spikes, x.shape), (grad_v, x.shape[1:])):
            if grad is not None and (grad.shape != shape or grad.device != x.device or grad.is_complex()):
                raise ValueError(
                    f"a gradient is {tuple(grad.shape)} of {grad.dtype} on {grad.device}, not {tuple(shape)} on {x.device}"
                )
        x = _steps(x)
        grad_x, grad_v0 = _empty(x), _empty_v(x, v is not None)
        grad_tau = x.new_zeros((), dtype=grad_v0.dtype)
        if x.numel():
            choose(x, dynamics, backward=True).backward(
                _laid_out_like(grad_spikes, x[0], x.dtype),
                _laid_out_like(grad_v, x[0], grad_v0.dtype),
                x,
                _laid_out_like(v, x[0], grad_v0.dtype),
                dynamics,
                grad_x,
                None if v is None else grad_v0,
                grad_tau if dynamics.learnt else None,
            )
        return grad_x, grad_v0, grad_tau

    return kernel


def _any_device(x, dynamics, backward=False):
    return _Reference


def _cpu(x, dynamics, backward=False):
    return native if native.supports(x, dynamics, backward) else _Reference


def _cuda(x, dynamics, backward=False):
    return triton if triton is not None and triton.supports(x, dynamics, backward) else _Reference


_FORWARD = f"(Tensor x, Tensor? v, {FLAT}, bool return_v) -> (Tensor, Tensor)"
_BACKWARD = f"(Tensor grad_spikes, Tensor? grad_v, Tensor x, Tensor? v, {FLAT}) -> (Tensor, Tensor, Tensor)"
_lif = torch.library.custom_op("spikeformers::lif", _forward_with(_any_device), mutates_args=(), schema=_FORWARD)
_lif_backward = torch.library.custom_op(
    "spikeformers::lif_backward", _backward_with(_any_device), mutates_args=(), schema=_BACKWARD
)
for _op, _kernel in ((_lif, _forward_with), (_lif_backward, _backward_with)):
    _op.register_kernel("cpu", _kernel(_cpu))
    _op.register_kernel("cuda", _kernel(_cuda))


@register_decomposition(
    torch.ops.spikeformers.lif.default, type="meta"
)  # or where sizes are symbols, the decomposition would be taken
@_lif.register_fake
def _(x, v, *call):
    x = _steps(x)
    return _empty(x), _empty_v(x, call[-1])


@_lif_backward.register_fake
def _(grad_spikes, grad_v, x, v, *flat):
    x = _steps(x)
    grad_v0 = _empty_v(x, v is not None)
    return _empty(x), grad_v0, x.new_empty((), dtype=grad_v0.dtype)


_EMITTED = "emitted"  # of a neuron's node in autograd's graph: which of its outputs are spikes


def _setup_context(ctx, inputs, output):
    x, v, tau_parameter, *constants, return_v = inputs
    setattr(ctx, _EMITTED, 0)
    ctx.save_for_backward(x, v, tau_parameter)
    ctx.constants, ctx.return_v = constants, return_v


def _autograd_backward(ctx, grad_spikes, grad_v):
    x, v, tau_parameter = ctx.saved_tensors
    grad_x, grad_v0, grad_tau = torch.ops.spikeformers.lif_backward(
        grad_spikes, grad_v if ctx.return_v else None, x, v, tau_parameter, *ctx.constants
    )
    return (
        grad_x,
        None if v is None else grad_v0.to(v.dtype),
        None if tau_parameter is None else grad_tau.to(tau_parameter.dtype),
        *[None] * (len(ctx.constants) + 1),
    )


def _no_second_derivative(ctx, *grads):
    raise RuntimeError(
        "neurons have no second derivative here, since only x and v are kept for the first; torch.func (grad of grad, hessian) "
        "differentiates their surrogate"
    )


_lif.register_autograd(_autograd_backward, setup_context=_setup_context)
_lif_backward.register_autograd(_no_second_derivative)


@register_decomposition(torch.ops.spikeformers.lif.default)
def _decomposed(x, v, *call):
    """The operation in standard operators, for exporters. It is not differentiated."""
    *flat, return_v = call
    spikes, v = reference.composed(x, v, Dynamics.restored(flat), differentiable=False)
    return spikes, v if return_v else v.new_empty(0)
