"""The how-manieth each element is among those equal to it."""

import numpy as np


def earlier(keys: np.ndarray) -> np.ndarray:
    """How many of the same value come before each of `keys` [N]."""
    order = np.argsort(keys, kind="stable")
    number = np.empty(len(keys), np.int64)
    number[order] = np.arange(len(keys)) - np.searchsorted(keys[order], keys[order])
    return number
