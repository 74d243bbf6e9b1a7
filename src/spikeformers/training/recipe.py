"""A recipe: everything that decides the result of a training run, and the machine it runs on."""

import copy
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from ..data import ImageData


@dataclass
class Model:
    """The model to train.

    Args:
        name: a name of `spikeformers list`.
        kwargs: its constructor's options; num_classes and in_chans follow from the data unless given.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Training:
    """How the weights are found.

    Args:
        epochs: passes over the training images.
        optimizer: a name of timm's optimisers, such as adamw, lamb or sgd.
        lr: the highest learning rate; it rises to it over warmup_epochs and falls to min_lr along a cosine, step by step.
        min_lr: the learning rate at the end.
        warmup_epochs: epochs of linear rise, fractions allowed.
        weight_decay: weight decay of all parameters but biases and the likes of them (one dimension or none).
        clip_grad: largest norm of the gradient; 0 does not clip.
        label_smoothing: share of the target spread over all classes.
        mixup: alpha of mixup, 0 for none.
        cutmix: alpha of CutMix, 0 for none.
        precision: Lightning's word for the arithmetic, such as 32-true, bf16-mixed or 16-mixed.
    """

    epochs: int = 100
    optimizer: str = "adamw"
    lr: float = 1e-3
    min_lr: float = 1e-6
    warmup_epochs: float = 0.0
    weight_decay: float = 0.05
    clip_grad: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    precision: str = "32-true"

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError(f"training.epochs is {self.epochs}; give at least 1")
        if not self.lr > 0:
            raise ValueError(f"training.lr is {self.lr}; give a number above 0, such as 1e-3")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"training.warmup_epochs is {self.warmup_epochs}; give 0 or more, below training.epochs ({self.epochs})"
            )


@dataclass
class Machine:
    """Where it runs. Under torchrun the numbers of devices and nodes are torchrun's.

    Args:
        accelerator: auto, cpu, gpu or another of Lightning's.
        devices: how many processes, one per device, share each batch; auto takes all devices.
        num_nodes: how many computers take part.
        sync_batchnorm: batch statistics over all processes; on GPUs only.
        threads: CPU threads of each process, 0 for torch's choice. For small models one is as fast as two, does not suffer
            from whatever else runs on the machine, and makes results independent of the number of cores.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    sync_batchnorm: bool = False
    threads: int = 0


@dataclass
class Recipe:
    """Which model learns what, and how.

    Args:
        seed: decides everything random; the same seed gives the same result.
    """

    model: Model
    data: ImageData = field(default_factory=ImageData)
    training: Training = field(default_factory=Training)
    trainer: Machine = field(default_factory=Machine)
    seed: int = 0

    @classmethod
    def from_dict(cls, config: dict) -> "Recipe":
        """The recipe of `as_dict`; what is left out has its default."""
        config = copy.deepcopy(config)
        return cls(
            Model(**config["model"]),
            ImageData(**config.get("data", {})),
            Training(**config.get("training", {})),
            Machine(**config.get("trainer", {})),
            config.get("seed", 0),
        )

    def as_dict(self) -> dict:
        """Nested dicts and lists of numbers and strings, for YAML, JSON and checkpoints."""
        return json.loads(json.dumps(asdict(self)))


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """The options in which two recipes promise different results, as {"training.lr": (old, new)}.

    What only says where it runs is left out: trainer.*, data.root and data.workers.
    """
    a, b = _flat(old.as_dict()), _flat(new.as_dict())
    return {
        key: (a.get(key), b.get(key))
        for key in {**a, **b}
        if a.get(key) != b.get(key) and not key.startswith("trainer.") and key not in ("data.root", "data.workers")
    }


def _flat(config, prefix=""):
    flat = {}
    for key, value in config.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
