"""Attention between spikes: sums and masks, no softmax."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._arguments import Count, checked
from ..neurons import Neuron
from .merging import MergeChoices, Part

OPERATORS = (1, 2, 3, 4)


def spike_attention(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """Q (K^T V) per head: for each token and channel, the number of paths through the spikes of a head.

    Computed channel-first as (V K^T) Q or V (K^T Q), whichever is cheaper; the counts are integers, so the order of the
    products changes nothing as long as they stay below 2^24.

    Args:
        q, k, v: spikes [T, B, C, H, W] in {0, 1}; channel c belongs to head c // (C / num_heads).
        num_heads: h, a divisor of C.

    Returns:
        Counts [T, B, C, H, W], integers 0 .. H*W*C/h.
    """
    tokens, width = q.shape[3] * q.shape[4], q.shape[2] // num_heads
    heads = [z.reshape(-1, width, tokens) for z in (q, k, v)]
    queries, keys, values = heads
    if width <= tokens:
        counts = (values @ keys.transpose(1, 2)) @ queries
    else:
        counts = values @ (keys.transpose(1, 2) @ queries)
    return counts.reshape(q.shape)


class PerHead(nn.ModuleList):
    """Neurons with different thresholds, one for each head: what merging makes of SDSA-4's neuron."""

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> spikes [T, B, C, H, W]; the first C / h channels belong to the first neuron, and so on"""
        return torch.cat([neuron(head) for neuron, head in zip(self, x.chunk(len(self), 2), strict=True)], 2)


class SpikingSelfAttention(Part):
    """Self-attention between spikes, SDSA-1 to SDSA-4 of Yao et al. (ICLR 2024); SDSA-3 is also the SSA of Spikingformer.

    1: q * SN(sum over tokens of k * v)      O(N C); the operator of Spike-driven Transformer V1
    2: q * SN(sum over tokens of k)          O(N C); experimental: the paper's exact form is not known
    3: SN(0.125 * q (k^T v))                 O(N C^2 / h); SN has threshold 0.5, hence 4 counts
    4: SDSA-3 with a learnable positive threshold per head, 4 counts at first; our reading of the paper

    The scale is 0.125 for every head size.

    Args:
        dim: channels C.
        num_heads: h, a divisor of dim.
        projection: makes the layer from spikes [T, B, C, H, W] to potentials of the same shape, for q, k and v.
        out_projection: the same for the output; `projection` if None.
        neuron: makes a spiking neuron with the given threshold.
        operator: 1, 2, 3 or 4.

    Attributes:
        scaled: whether the counts of SDSA-3 and SDSA-4 are scaled; False once `merge` has put the scale into attn_lif's threshold.

    Raises:
        ValueError: heads that do not divide dim, or no such operator.
    """

    @checked
    def __init__(
        self,
        dim: Count,
        num_heads: int,
        projection: Callable[[int], nn.Module],
        neuron: Callable[[float], nn.Module],
        out_projection: Callable[[int], nn.Module] | None = None,
        operator: int = 3,
    ):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            divisors = [n for n in range(1, dim + 1) if dim % n == 0 and n <= 64]
            raise ValueError(
                f"num_heads={num_heads} does not divide the {dim} channels of this attention; use one of {divisors}"
            )
        if operator not in OPERATORS:
            raise ValueError(f"sdsa must be one of {', '.join(map(str, OPERATORS))}, not {operator!r}")
        self.num_heads = num_heads
        self.operator = operator
        self.q, self.k = projection(dim), projection(dim)
        self.q_lif, self.k_lif = neuron(1.0), neuron(1.0)
        if operator != 2:
            self.v, self.v_lif = projection(dim), neuron(1.0)
        if operator == 4:
            self.log2_threshold = nn.Parameter(torch.full((num_heads,), 2.0))
        self.scaled = operator >= 3
        self.attn_lif = neuron(0.5)
        self.proj = (out_projection or projection)(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes [T, B, C, H, W] -> potentials [T, B, C, H, W]"""
        q, k = self.q_lif(self.q(x)), self.k_lif(self.k(x))
        if self.operator <= 2:
            keys = k * self.v_lif(self.v(x)) if self.operator == 1 else k
            return self.proj(q * self.attn_lif(keys.sum((3, 4), keepdim=True)))
        counts = spike_attention(q, k, self.v_lif(self.v(x)), self.num_heads)
        return self.proj(self.attn_lif(counts * self._scale(counts) if self.scaled else counts))

    def _scale(self, counts: Tensor) -> Tensor | float:
        """What brings the threshold in counts to the neuron's 0.5, per channel."""
        if self.operator == 3:
            return 0.125
        per_channel = torch.exp2(-self.log2_threshold).repeat_interleave(counts.shape[2] // self.num_heads)
        return 0.5 * per_channel.to(counts.dtype)[:, None, None]

    def merged(self, choices: MergeChoices) -> nn.Module:
        """The scale becomes part of the threshold, one for each head of SDSA-4, where the neuron's dynamics allow it."""
        if not self.scaled or not isinstance(self.attn_lif, Neuron) or not choices.free(self.attn_lif):
            return self
        scales = [0.125] if self.operator == 3 else [0.5 * 2.0**-log2 for log2 in self.log2_threshold.tolist()]
        neurons = [neuron for scale in scales if (neuron := self.attn_lif.behind_scale(scale)) is not None]
        if len(neurons) < len(scales):
            return self
        if self.operator == 4:
            del self.log2_threshold
        self.attn_lif = neurons[0] if self.operator == 3 else PerHead(neurons)
        self.scaled = False
        return self

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, operator={self.operator}"
