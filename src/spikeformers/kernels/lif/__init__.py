"""Leaky integrate-and-fire neurons over T time steps: the public operation, and which implementation serves which device."""

import math

import torch
from torch import Tensor
from torch._decomp import register_decomposition
from torch.autograd import forward_ad

from . import native, reference
from .reference import INTEGRATIONS, SURROGATES, Dynamics, compute_dtype

try:
    from . import triton
except ImportError:
    triton = None

__all__ = ["ALPHA", "INTEGRATIONS", "SURROGATES", "decompositions", "lif", "status"]

ALPHA = {"sigmoid": 4.0, "atan": 2.0, "rectangle": 1.0, "triangle": 1.0}
"""The customary sharpness of each surrogate gradient."""


def lif(
    x: Tensor,
    v: Tensor | None = None,
    *,
    tau: float | Tensor | None = 2.0,
    v_threshold: float = 1.0,
    decay_input: bool = True,
    reset: str = "hard",
    surrogate: str = "sigmoid",
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
        surrogate: "sigmoid", "atan", "rectangle" or "triangle": whose derivative, of unit area, replaces the step's.
        alpha: sharpness of the surrogate; None means the customary one, ALPHA[surrogate].
        return_v: whether the potential after the last step is wanted; if not, an empty tensor stands in its place.

    Returns:
        Spikes [T, ...] in {0, 1} with x's dtype, and the membrane potential [...] after the last step (float32 for half types).

    Raises:
        ValueError: x has no time axis, v's shape is not x's without it or its device another, or a constant is out of range.
    """
    _check_tensors(x, v)
    if reset not in ("hard", "soft"):
        raise ValueError(f"reset must be 'hard' or 'soft', not {reset!r}")
    if surrogate not in SURROGATES:
        raise ValueError(f"surrogate must be one of {', '.join(SURROGATES)}, not {surrogate!r}")
    if not v_threshold > 0:
        raise ValueError(f"v_threshold must be positive, not {v_threshold}")
    learnable = isinstance(tau, Tensor)
    if learnable:
        _check_learnable(tau)
    if not learnable and tau is not None and not tau >= 1:
        raise ValueError(f"tau must be at least 1 time step, or None for no leak, not {tau}")
    alpha = ALPHA[surrogate] if alpha is None else alpha
    if not alpha > 0 or alpha == math.inf:
        raise ValueError(f"alpha must be positive{' and finite' * (alpha == math.inf)}, not {alpha}")
    integration = "perfect" if tau is None else "leaky" if decay_input else "leaky_full_input"
    if _is_transformed(x, v, tau):
        constants = INTEGRATIONS.index(integration), float(v_threshold), reset == "soft", SURROGATES.index(surrogate), float(alpha)
        spikes, v = reference.composed(x, v, 1.0 if tau is None else tau, Dynamics(*constants))
        return spikes, v if return_v else v.new_empty(0)
    return torch.ops.spikeformers.lif(
        x,
        v,
        tau if learnable else None,
        1.0 if learnable or tau is None else float(tau),
        INTEGRATIONS.index(integration),
        float(v_threshold),
        reset == "soft",
        SURROGATES.index(surrogate),
        float(alpha),
        return_v,
    )


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


def _check_learnable(tau: Tensor) -> None:
    if tau.ndim or not tau.is_floating_point():
        raise ValueError(f"a learnable tau must be a 0-d tensor of floating-point numbers, not {tuple(tau.shape)} of {tau.dtype}")


def _check_call(x, v, tau_parameter, tau, integration, surrogate) -> None:
    """Of the operation as torch has it, which anybody may call."""
    _check_tensors(x, v)
    if tau_parameter is not None:
        _check_learnable(tau_parameter)
        if tau_parameter.device.type == "cpu":
            tau = float(tau_parameter)
    if not tau >= 1:
        raise ValueError(f"tau must be at least 1 time step, not {tau}; 1 + exp(-w) of a parameter w always is")
    if not 0 <= integration < len(INTEGRATIONS) or not 0 <= surrogate < len(SURROGATES):
        raise ValueError(f"there is no integration number {integration} or no surrogate number {surrogate}")
    if any(forward_ad.unpack_dual(z).tangent is not None for z in (x, v, tau_parameter) if z is not None):
        raise RuntimeError("torch.ops.spikeformers.lif has no forward-mode derivative; spikeformers.kernels.lif.lif has")


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
    def forward(x, v, tau, dynamics, spikes, v_last):
        s, v = reference.lif_forward(x, v, tau, dynamics)
        spikes.copy_(s)
        if v_last is not None:
            v_last.copy_(v)

    @staticmethod
    def backward(grad_spikes, grad_v, x, v, tau, dynamics, grad_x, grad_v0, grad_tau):
        results = reference.lif_backward(grad_spikes, grad_v, x, v, tau, dynamics)
        for out, result in zip((grad_x, grad_v0, grad_tau), results, strict=True):
            if out is not None:
                out.copy_(result)


def _forward_with(choose):
    """The kernel of `spikeformers::lif` for one device type; choose(x) picks the implementation."""

    def kernel(
        x: Tensor,
        v: Tensor | None,
        tau_parameter: Tensor | None,
        tau: float,
        integration: int,
        v_threshold: float,
        soft_reset: bool,
        surrogate: int,
        alpha: float,
        return_v: bool,
    ) -> tuple[Tensor, Tensor]:
        _check_call(x, v, tau_parameter, tau, integration, surrogate)
        x = _steps(x)
        spikes, v_last = _empty(x), _empty_v(x, return_v)
        if x.numel():
            choose(x).forward(
                x,
                _laid_out_like(v, x[0], v_last.dtype),
                tau if tau_parameter is None else tau_parameter.detach(),
                Dynamics(integration, v_threshold, soft_reset, surrogate, alpha),
                spikes,
                v_last if return_v else None,
            )
        return spikes, v_last

    return kernel


def _backward_with(choose):
    """The kernel of `spikeformers::lif_backward` for one device type."""

    def kernel(
        grad_spikes: Tensor,
        grad_v: Tensor | None,
        x: Tensor,
        v: Tensor | None,
        tau_parameter: Tensor | None,
        tau: float,
        integration: int,
        v_threshold: float,
        soft_reset: bool,
        surrogate: int,
        alpha: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        _check_call(x, v, tau_parameter, tau, integration, surrogate)
        for grad, shape in ((grad_spikes, x.shape), (grad_v, x.shape[1:])):
            if grad is not None and (grad.shape != shape or grad.device != x.device or grad.is_complex()):
                raise ValueError(f"a gradient is {tuple(grad.shape)} of {grad.dtype} on {grad.device}, not {tuple(shape)} on {x.device}")
        x = _steps(x)
        grad_x, grad_v0 = _empty(x), _empty_v(x, v is not None)
        grad_tau = x.new_zeros((), dtype=grad_v0.dtype)
        if x.numel():
            choose(x).backward(
                _laid_out_like(grad_spikes, x[0], x.dtype),
                _laid_out_like(grad_v, x[0], grad_v0.dtype),
                x,
                _laid_out_like(v, x[0], grad_v0.dtype),
                tau if tau_parameter is None else tau_parameter.detach(),
                Dynamics(integration, v_threshold, soft_reset, surrogate, alpha),
                grad_x,
                None if v is None else grad_v0,
                None if tau_parameter is None else grad_tau,
            )
        return grad_x, grad_v0, grad_tau

    return kernel


def _any_device(x):
    return _Reference


def _cpu(x):
    return native if native.supports(x) else _Reference


def _cuda(x):
    return triton if triton is not None and triton.supports(x) else _Reference


_lif = torch.library.custom_op("spikeformers::lif", _forward_with(_any_device), mutates_args=())
_lif_backward = torch.library.custom_op("spikeformers::lif_backward", _backward_with(_any_device), mutates_args=())
for _op, _kernel in ((_lif, _forward_with), (_lif_backward, _backward_with)):
    _op.register_kernel("cpu", _kernel(_cpu))
    _op.register_kernel("cuda", _kernel(_cuda))


@register_decomposition(torch.ops.spikeformers.lif.default, type="meta")  # or where sizes are symbols, the decomposition would be taken
@_lif.register_fake
def _(x, v, tau_parameter, tau, integration, v_threshold, soft_reset, surrogate, alpha, return_v):
    x = _steps(x)
    return _empty(x), _empty_v(x, return_v)


@_lif_backward.register_fake
def _(grad_spikes, grad_v, x, v, tau_parameter, tau, integration, v_threshold, soft_reset, surrogate, alpha):
    x = _steps(x)
    grad_v0 = _empty_v(x, v is not None)
    return _empty(x), grad_v0, x.new_empty((), dtype=grad_v0.dtype)


def _setup_context(ctx, inputs, output):
    x, v, tau_parameter, *constants, return_v = inputs
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
def _decomposed(x, v, tau_parameter, tau, integration, v_threshold, soft_reset, surrogate, alpha, return_v):
    """The operation in standard operators, for exporters. It is not differentiated."""
    constants = Dynamics(integration, v_threshold, soft_reset, surrogate, alpha)
    spikes, v = reference.composed(x, v, tau if tau_parameter is None else tau_parameter, constants, differentiable=False)
    return spikes, v if return_v else v.new_empty(0)
