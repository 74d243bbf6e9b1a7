"""Which training samples are tested on: folds of cross-validation, and samples held out."""

from collections.abc import Sequence

import numpy as np

from .protocols import Data
from .randomness import stable_seed


def fold_of(labels: Sequence[int], folds: int) -> np.ndarray:
    """The fold, 1 to `folds`, in which each sample is tested: classes evenly spread, the same on every machine.

    Raises:
        ValueError: a class has fewer samples than there are folds.
    """
    labels = np.asarray(labels)
    result = np.zeros(len(labels), int)
    started = 0
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        if len(members) < folds:
            raise ValueError(
                f"data.folds is {folds}, but the class {label} has only {len(members)} samples; give fewer folds"
            )
        order = np.random.default_rng(stable_seed("folds", int(label))).permutation(len(members))
        result[members[order]] = (started + np.arange(len(members))) % folds + 1
        started += len(members)
    return result


def check_holdout(data: Data) -> None:
    """Refuses two ways to test on training samples at once.

    Raises:
        ValueError: data.holdout is given with data.folds.
    """
    if data.holdout and data.folds > 1:
        raise ValueError("data.folds tests on training samples already; leave out data.holdout or data.folds")


def held_out_of(labels: Sequence[int], count: int) -> np.ndarray:
    """Which `count` samples are held out of training, as bools: classes as evenly as they come, the same on every machine.

    Raises:
        ValueError: nothing would be left to train on.
    """
    labels = np.asarray(labels)
    if count >= len(labels):
        raise ValueError(f"data.holdout is {count}, and there are only {len(labels)} training samples; give fewer")
    order = np.random.default_rng(stable_seed("holdout")).permutation(len(labels))
    rank = np.empty(len(labels), int)  # of each sample among those of its class, in this order
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    chosen = np.zeros(len(labels), bool)
    chosen[order[np.argsort(rank[order], kind="stable")[:count]]] = True
    return chosen
