"""Attention of spikes (TCSA: STA, ICLR 2024): the spikes sent so far stand for all that will be sent, and later ones correct the result."""
# Shapes: T time steps, B batch, h heads, N queries, M keys, d channels of a head.

import math
from collections.abc import Callable

import torch
from torch import Tensor


def mask_of(mask: Tensor | None, causal: bool, logits: Tensor) -> Tensor | None:
    """The addend of the logits [..., N, M] that hides keys from queries.

    Args:
        mask: to be added, or true where a key may be seen; None for no restriction.
        causal: whether a query sees the keys up to its own place only.
        logits: [..., N, M].
    """
    if causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=logits.dtype).masked_fill_(~mask, -torch.inf)
    return mask


def tcsa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    encode: Callable[[Tensor], Tensor],
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    exponential: Callable[[Tensor], Tensor] = torch.exp,
    divide: Callable[[Tensor, Tensor], Tensor] = torch.div,
    multiply: Callable[[str, Tensor, Tensor], Tensor] = lambda name, a, b: a @ b,
    add_up: Callable[[Tensor], Tensor] = lambda weights: weights.sum(-1, keepdim=True),
) -> Tensor:
    """The mean output of attention after t steps, from the mean queries, keys and values so far.

    L = S_q S_k' / (t^2 sqrt(d)) + mask,  A = exp(L - max L),  O = S_m S_v / (t sum S_m); S are sums of what was sent, S_m / t =
    encode(A), and the sum is over keys. Nothing of an earlier step is needed but those sums.

    The paper transmits the quotients of softmax and divides by t. Here the sum of what has arrived divides: rows of equal weights,
    however many and small, are exact then, where quotients of 1 / M would all be rounded the same way.

    Args:
        q, k, v: S / t [..., N or M, d].
        encode: weights [..., N, M], 1 for a query's best key -> the mean of the spikes that have transmitted them so far.
        mask: what is added to the logits, or True for keys that are seen. A query that sees none gets zeros.
        causal: the first query sees the first key only, and so on.
        scale: instead of 1 / sqrt(d).
        exponential, divide: functions of tensors.
        multiply: the products, named "logits" and "output".
        add_up: what `encode` gave [..., N, M] -> its sum over keys [..., N, 1].
    """
    logits = multiply("logits", q, k.transpose(-2, -1)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    mask = mask_of(mask, causal, logits)
    if mask is not None:
        logits = logits + mask
    weights = encode(exponential(below_best(logits)))
    return divide(multiply("output", weights, v), not_zero(add_up(weights)))


def tcsa_reference(
    q: Tensor, k: Tensor, v: Tensor, encode: Callable[[Tensor], Tensor], mask: Tensor | None = None
) -> Tensor:
    """The same step by step, every quantity an increment, as the paper writes it: spikes [T, ..., d] -> outputs [T, ..., N, d],
    whose mean over the first t steps is what `tcsa` gives after t.

    p[t] = (S_q[t] k[t]' + q[t] S_k[t-1]') / sqrt(d);  A[t] = exp(L - max L), L = S_p[t] / t^2;  o[t] = S_m[t] S_v[t] / sum S_m[t] - sum
    of o so far

    Args:
        encode: weights [..., N, M] of step t -> the spikes of step t.
    """
    total_q, total_k, total_v, total_p, total_m, total_o, outputs = 0, torch.zeros_like(k[0]), 0, 0, 0, 0, []
    for t, (q_t, k_t, v_t) in enumerate(zip(q, k, v, strict=True), 1):
        total_q = total_q + q_t
        total_p = total_p + (total_q @ k_t.transpose(-2, -1) + q_t @ total_k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
        total_k, total_v = total_k + k_t, total_v + v_t
        logits = total_p / t**2
        added = mask_of(mask, False, logits)
        total_m = total_m + encode(below_best(logits if added is None else logits + added).exp())
        outputs.append(total_m @ total_v / not_zero(total_m.sum(-1, keepdim=True)) - total_o)
        total_o = total_o + outputs[-1]
    return torch.stack(outputs)


def below_best(logits: Tensor) -> Tensor:
    """Logits [..., N, M] minus the largest of each row; minus infinity, not NaN, where every key is masked."""
    return logits - logits.amax(-1, keepdim=True).clamp_min(torch.finfo(logits.dtype).min)


def not_zero(total: Tensor) -> Tensor:
    """A sum [...] as what may be divided by, where nothing has arrived yet."""
    return total.clamp_min(torch.finfo(total.dtype).tiny)
