"""Random numbers that are the same on every machine, whoever draws them in which order."""

import hashlib
import random
from contextlib import contextmanager

import numpy as np
import torch


def stable_seed(*key) -> int:
    """A 63-bit seed that is the same for the same numbers on every machine, and unrelated for neighbouring ones."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


def _draw_from(seed):
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reset the GPU's generator as well


@contextmanager
def drawing_from(seed: int):
    """Inside, Python, NumPy and torch (on the CPU) draw from `seed`; outside they go on as if nothing had happened. Yields the
    function that begins anew with another seed."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _draw_from(seed)
    try:
        yield _draw_from
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
