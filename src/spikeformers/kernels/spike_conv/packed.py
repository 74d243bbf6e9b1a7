"""Spikes as bits: one 64-bit word for 64 channels of a pixel, channels last."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """Spikes of a map, or of tokens (W = 1), as bits.

    Attributes:
        words: int64 [planes, T, B, H, W, ceil(C / 64)]; bit c % 64 of word c // 64 is channel c; what is behind the last channel is
            no spike, whatever it is. A value is the sum of its bits over the planes: one plane for binary spikes, more for whole numbers.
        channels: C.
    """

    words: Tensor
    channels: int

    def __post_init__(self):
        self.check()

    def check(self) -> "Packed":
        """
        Raises:
            ValueError: the words are not such as the channels take.
        """
        if (
            not isinstance(self.channels, int)
            or self.words.ndim != 6
            or self.words.dtype != torch.int64
            or self.words.shape[5] * 64 - self.channels not in range(64)
        ):
            raise ValueError(
                f"{self.channels} channels of spikes take int64 words [planes, T, B, H, W, channels / 64, rounded up], not "
                f"{tuple(self.words.shape)} of {self.words.dtype}; use pack"
            )
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, B, C, H, W)"""
        _, t, b, h, w, _ = self.words.shape
        return t, b, self.channels, h, w

    @property
    def density(self) -> float:
        """Mean value: additions per input and output channel of a layer that reads it."""
        ones = sum(int(((self.words >> bit) & 1).sum()) for bit in range(64))
        return ones / max(1, self.words[0, ..., 0].numel() * self.channels)


def pack(x: Tensor) -> Packed:
    """Spikes [T, B, C, H, W], whole numbers from 0, of any type and layout -> bits, as many planes as the largest value.

    Raises:
        ValueError: x has no such shape, or other values.
    """
    if x.ndim != 5:
        raise ValueError(
            f"expected spikes [T, B, C, H, W], not {tuple(x.shape)}; tokens [T, B, N, C] are x.movedim(3, 2)[..., None]"
        )
    x = x.byte() if x.dtype == torch.bool else x
    if not ((x >= 0) & (x % 1 == 0)).all():
        raise ValueError(
            "expected spikes, that is whole numbers from 0; these are potentials, or spikes times a factor"
        )
    planes = max(1, int(x.max())) if x.numel() else 1
    x, channels = x.movedim(2, 4), x.shape[2]
    words = x.new_zeros(planes, *x.shape[:4], -(-channels // 64), dtype=torch.int64)
    for plane in range(planes):
        for bit in range(min(64, channels)):
            fired = (x[..., bit::64] > plane).to(torch.int64)
            words[plane, ..., : fired.shape[-1]] |= fired << bit
    return Packed(words, channels)


def unpack(spikes: Packed, dtype: torch.dtype = torch.float32) -> Tensor:
    """The spikes as numbers [T, B, C, H, W], channels last in memory."""
    bits = (spikes.words.unsqueeze(-1) >> torch.arange(64)) & 1
    return bits.sum(0).flatten(4)[..., : spikes.channels].to(dtype).movedim(4, 2)
