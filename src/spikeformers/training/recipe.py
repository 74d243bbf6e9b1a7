"""A recipe: everything that decides the result of a training run, and the machine it runs on."""

import copy
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

from .._options import NOT_NEGATIVE, POSITIVE, PROBABILITY, check_options, shown
from .._ranges import Range
from ..data import Data, ImageData, data_names, data_type
from .task import options_of_others

WHEREABOUTS = ("data.root", "data.workers", "data.strict", "data.cache", "data.download", "training.teacher_weights")


@dataclass
class Model:
    """The model to train.

    Args:
        name: a name of `spikeformers list`.
        kwargs: its constructor's options; num_classes and in_chans follow from the data unless given.
        weights: where training starts: best.ckpt of a run, a .safetensors file or a published checkpoint; its time_steps,
            which no weight knows, may differ, and a classifier for other classes is left out. A detector or segmenter also
            starts from a classifier's weights, which become its backbone's. Random weights if not given.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None

    def __post_init__(self):
        check_options(self, "model", {})


@dataclass
class Training:
    """How the weights are found. Options that say something about some tasks only are named by these (`task.Learning.options`).

    Args:
        epochs: passes over the training samples, without the cool-down.
        extend: epochs after those, for schedule step only, whose learning rate goes on as if epochs had been larger. With --resume
            it makes a run longer, finished or not, and again with a larger number.
        patience: the run ends after so many epochs without a better score, the one that chooses the best epoch; 0: never before its time.
        optimizer: a name of timm's optimisers, such as adamw, lamb or sgd.
        optimizer_kwargs: further options of it, such as {trust_clip: true} for lamb.
        lr: the highest learning rate; it rises to it over warmup_epochs and then falls.
        schedule: cosine or poly, down to min_lr step by step, or step, by the factor decay_rate every decay_epochs.
        poly_power: power of the share of the steps that is left, which poly multiplies by; 1 falls along a line.
        decay_epochs: epochs between two falls of step.
        decay_at: instead of decay_epochs the epochs, counted from 0, at whose start step lets it fall, such as [8, 11].
        decay_rate: the factor of each fall.
        lr_batch_size: the batch size that lr is meant for: the learning rate is lr * data.batch_size / lr_batch_size, the
            linear rule of the papers (their base learning rates are meant for 256). 0: lr is taken as it is.
        min_lr: the learning rate at the end of cosine and poly, not scaled by the rule.
        warmup_lr: the learning rate before the first step of the warm-up, not scaled by the rule.
        warmup_epochs: epochs of linear rise, fractions allowed. Where there are not so many epochs it takes half of them.
        warmup_steps: optimiser steps of linear rise, instead of warmup_epochs.
        cooldown_epochs: epochs at min_lr after cosine or poly.
        layer_decay: factor of the learning rate from each layer to the one before it; 1 leaves all alike. Of detectors and
            segmenters those of the backbone.
        head_lr: factor of the learning rate of the heads of a detector or segmenter: everything but its backbone and its neck.
        neck_lr: factor of the learning rate of the neck of a detector or segmenter, its feature pyramid.
        weight_decay: weight decay of all parameters but biases and the likes of them (one dimension or none).
        clip_grad: largest norm of the gradient; 0 does not clip.
        accumulate: batches per optimiser step: data.batch_size samples are computed in so many parts, which saves memory.
        ema: decay per step of an exponential moving average of the weights, such as 0.9999; it is what is tested and exported.
            0: none.
        loss: ce, cross-entropy of the logits averaged over time, or tet, that of every time step's logits (temporal efficient
            training, Deng et al., ICLR 2022, Eq. 10).
        tet_lambda: weight of TET's second term, the squared distance of all logits to tet_mean.
        tet_mean: the value that TET pulls the logits to.
        class_weights: what the loss of each class is multiplied by: none, balanced (training samples / classes / samples of the class) or
            a number for each class, in their order. Early classifiers and TET have it too; the teacher's part and tests do not.
        label_smoothing: share of the target spread over all classes.
        mixup: alpha of mixup, 0 for none; event frames are mixed alike.
        cutmix: alpha of CutMix, 0 for none.
        mixup_prob: probability that a batch is mixed.
        mixup_off_epoch: the first epoch (from 0) without mixing; 0 mixes to the end.
        teacher: a model of timm whose answers are learned besides the labels (knowledge distillation), such as
            caformer_b36.sail_in22k_ft_in1k. A model with a distillation head learns them there, another with its only head.
        teacher_weights: a safetensors file of the teacher's weights; without it timm downloads them. Without training.teacher it is
            a network of this library: best.ckpt of a run, or a .safetensors file with its .json beside it. Images are normalised
            anew for a teacher that is used to another mean and standard deviation (timm's pretrained_cfg, the run's data).
        teacher_view: augmented, the teacher sees what the model sees, or plain: it sees every training sample once, as in testing,
            before training begins, and its answers are kept. That costs one pass instead of one per epoch, and is near enough where
            augmentation mirrors and shifts.
        distillation: hard, the teacher's likeliest class, or soft, its probabilities.
        distillation_alpha: weight of the teacher's part in the loss, in [0, 1].
        distillation_tau: temperature of soft distillation.
        rate_penalty: weight of the firing rate in the loss: the mean over layers of neurons, of what exceeds rate_target. 0: none.
        rate_target: firing rate of a layer, spikes per neuron and time step, up to which it costs nothing.
        early_classifiers: true for a classifier behind every stage but the last, shared for one that all stages share (SSNN, AAAI
            2024). They learn with the model and are neither tested nor exported.
        early_weight: weight lambda of each of their losses.
        freeze_norms: epochs after which batch normalisations of the backbone keep their statistics, as is usual where batches hold
            a few images only; their weights learn all the same. 0 keeps those that they start with, null lets all epochs count.
        precision: Lightning's word for the arithmetic of training: 32-true, bf16-mixed, 16-mixed or 64-true. Weights are float32
            (float64) in each, and all tests are computed in float32.
        checkpointing: recompute activations in the backward pass instead of keeping them (activation checkpointing).
        compile: compile the model with torch.compile.
    """

    epochs: int = 100
    extend: int = 0
    patience: int = 0
    optimizer: str = "adamw"
    optimizer_kwargs: dict[str, Any] = field(default_factory=dict)
    lr: float = 1e-3
    schedule: Literal["cosine", "poly", "step"] = "cosine"
    poly_power: float = 1.0
    decay_epochs: int = 30
    decay_at: list[float] = field(default_factory=list)
    decay_rate: float = 0.1
    lr_batch_size: int = 0
    min_lr: float = 1e-6
    warmup_lr: float = 0.0
    warmup_epochs: float = 0.0
    warmup_steps: int = 0
    cooldown_epochs: int = 0
    layer_decay: float = 1.0
    head_lr: float = 1.0
    neck_lr: float = 1.0
    weight_decay: float = 0.05
    clip_grad: float = 0.0
    accumulate: int = 1
    ema: float = 0.0
    loss: Literal["ce", "tet"] = "ce"
    tet_lambda: float = 0.05
    tet_mean: float = 1.0
    class_weights: Literal["none", "balanced"] | list[float] = "none"
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_prob: float = 1.0
    mixup_off_epoch: int = 0
    teacher: str | None = None
    teacher_weights: str | None = None
    teacher_view: Literal["augmented", "plain"] = "augmented"
    distillation: Literal["hard", "soft"] = "hard"
    distillation_alpha: float = 0.5
    distillation_tau: float = 1.0
    rate_penalty: float = 0.0
    rate_target: float = 0.0
    early_classifiers: bool | Literal["shared"] = False
    early_weight: float = 0.5
    freeze_norms: int | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true", "32", "bf16", "16", "64"] = "32-true"
    checkpointing: bool = False
    compile: bool = False

    ranges: ClassVar = {
        **dict.fromkeys(("epochs", "accumulate", "decay_epochs"), Range(least=1, most=10**6)),
        **dict.fromkeys(
            ("cooldown_epochs", "mixup_off_epoch", "warmup_steps", "lr_batch_size"), Range(least=0, most=10**9)
        ),
        **dict.fromkeys(("lr", "head_lr", "neck_lr", "poly_power", "distillation_tau"), POSITIVE),
        **dict.fromkeys(
            ("min_lr", "warmup_lr", "warmup_epochs", "weight_decay", "clip_grad", "early_weight", "rate_penalty"),
            NOT_NEGATIVE,
        ),
        **dict.fromkeys(("mixup", "cutmix"), Range(least=0, most=1000)),  # beyond it nothing but 1 : 1 is ever drawn
        **dict.fromkeys(("mixup_prob", "distillation_alpha", "tet_lambda", "decay_rate", "rate_target"), PROBABILITY),
        **dict.fromkeys(("extend", "patience"), Range(least=0, most=10**6)),
        "class_weights": NOT_NEGATIVE,
        "ema": Range(least=0, below=1),  # an average with the decay 1 stays what the weights were at the start
        "label_smoothing": Range(least=0, below=1),
        "layer_decay": Range(above=0, most=1),
        "tet_mean": Range(least=-1e6, most=1e6),
        "decay_at": POSITIVE,
        "freeze_norms": NOT_NEGATIVE,
    }

    def __post_init__(self):
        check_options(self, "training", self.ranges)
        if self.freeze_norms is not None and not 0 <= self.freeze_norms < self.epochs:
            raise ValueError(
                f"training.freeze_norms is {self.freeze_norms}; give epochs from 0, below training.epochs ({self.epochs}), or null"
            )
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError(
                "training.warmup_epochs and training.warmup_steps say the same in two units; give one of them"
            )
        if self.decay_at and self.schedule != "step":
            raise ValueError(f"training.decay_at is for training.schedule step, not {self.schedule}; leave it out")
        if any(not 0 < epoch < self.epochs for epoch in self.decay_at):
            raise ValueError(
                f"training.decay_at is {self.decay_at}; give epochs above 0 and below training.epochs ({self.epochs})"
            )

        if self.extend and self.schedule != "step":
            raise ValueError(
                f"training.extend is {self.extend}, and training.schedule {self.schedule} ends at training.min_lr, from where nothing goes "
                "on; start a new run from the weights instead: --model.weights RUN/best.ckpt"
            )

    @property
    def all_epochs(self) -> int:
        """With what extends them and the cool-down."""
        return self.epochs + self.extend + self.cooldown_epochs


@dataclass
class Machine:
    """Where it runs. Under torchrun the numbers of devices and nodes are torchrun's, under SLURM those of the job.

    Args:
        accelerator: auto, cpu, gpu or another of Lightning's.
        devices: how many processes, one per device, share each batch; auto takes all devices.
        num_nodes: how many computers take part.
        strategy: auto, ddp (every process holds the whole model) or fsdp (FSDP2: parameters, gradients and optimiser states
            are divided among the processes).
        sync_batchnorm: batch statistics over all processes, with which several processes learn what one would.
        threads: CPU threads of each process, 0 for torch's choice. For small models one is as fast as two, does not suffer
            from whatever else runs on the machine, and makes results independent of the number of cores.
        deterministic: use only algorithms that give the same bits in every run, slower on GPUs; an error where there is none.
        loggers: where epochs can be watched, of tensorboard (the run folder's tensorboard/), wandb and mlflow, which are packages of their own.
        log_steps: optimiser steps between two entries of training loss and learning rate there; 0: only epochs.
        save_minutes: minutes between two savings within an epoch, from which --resume goes on; 0 saves after epochs only.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    sync_batchnorm: bool = False
    threads: int = 0
    deterministic: bool = False
    loggers: list[Literal["tensorboard", "wandb", "mlflow"]] = field(default_factory=lambda: ["tensorboard"])
    log_steps: int = 0
    save_minutes: float = 10.0

    ranges: ClassVar = {
        "devices": Range(least=-1, most=1024),
        "num_nodes": Range(least=1, most=10**5),
        "threads": Range(least=0, most=1024),
        "log_steps": Range(least=0, most=10**9),
        "save_minutes": Range(least=0, most=10**6),
    }

    def __post_init__(self):
        check_options(self, "trainer", self.ranges)
        if self.devices in (0, "0"):
            raise ValueError("trainer.devices is 0; give at least 1, or auto (-1) for all")


@dataclass
class Recipe:
    """Which model learns what, and how.

    Args:
        seed: decides everything random; the same seed gives the same result.
    """

    model: Model
    data: Data = field(default_factory=ImageData)
    training: Training = field(default_factory=Training)
    trainer: Machine = field(default_factory=Machine)
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not abs(self.seed) < 2**63:
            raise ValueError(f"seed is {shown(self.seed)}; give a whole number below 2^63")
        default, others = Training(), options_of_others(self.data.task)
        for key, value in vars(self.training).items():
            if key in others and value != getattr(default, key):
                raise ValueError(
                    f"training.{key} is {value!r}, which says nothing about {self.data.task}; leave it out"
                )

    @classmethod
    def from_dict(cls, config: dict) -> "Recipe":
        """The recipe of `as_dict`; what is left out has its default.

        Raises:
            ValueError: it is no recipe, or holds keys or values that recipes do not have; which is said.
        """
        sections = {"model": Model, "data": ImageData, "training": Training, "trainer": Machine}
        must_be_a_recipe(config, sections)
        if unknown := [key for key in config if key not in {*sections, "seed"}]:
            raise ValueError(f"unknown key {shown(unknown[0])}; a recipe has {', '.join(sections)} and seed")
        config = copy.deepcopy(config)
        sections["data"] = data_type(config.get("data", {}).get("name"))
        if "name" not in config.get("model", {}):
            raise ValueError("the recipe names no model; give model.name")
        parts = []
        for section, kind in sections.items():
            given, known = config.get(section, {}), {each.name for each in fields(kind)}
            if unknown := [f"{section}.{key}" for key in given if key not in known]:
                raise ValueError(f"unknown key {unknown[0]}; {section} has {', '.join(sorted(known))}")
            parts.append(kind(**given))
        return cls(*parts, config.get("seed", 0))

    def as_dict(self) -> dict:
        """Nested dicts and lists of numbers and strings, for YAML, JSON and checkpoints."""
        return json.loads(json.dumps(asdict(self)))


def must_be_a_recipe(config: Any, sections: Iterable[str] = ("model", "data", "training", "trainer")) -> None:
    """
    Raises:
        ValueError: this is no dict whose sections are dicts with words as keys, or data.name is none of the data sets.
    """
    what = "a recipe holds the sections model, data, training and trainer, each with options as KEY: VALUE"
    if not isinstance(config, dict):
        raise ValueError(f"the recipe is {shown(config)}; {what}")
    for section in sections:
        given = config.get(section, {})
        if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
            raise ValueError(f"{section} is {shown(given)} in the recipe; {what}")
    name = config.get("data", {}).get("name")
    if name is not None and name not in data_names():
        raise ValueError(f"data.name is {shown(name)}; give {', '.join(data_names())}")


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """The options in which two recipes promise different results, as {"training.lr": (old, new)}.

    What only says where it runs is left out: trainer.* but the batch statistics, and the data's WHEREABOUTS.
    """
    a, b = _flat(old.as_dict()), _flat(new.as_dict())
    return {
        key: (a.get(key), b.get(key))
        for key in {**a, **b}
        if a.get(key) != b.get(key)
        and (not key.startswith("trainer.") or key == "trainer.sync_batchnorm")
        and key not in WHEREABOUTS
    }


def _flat(config, prefix=""):
    flat = {}
    for key, value in config.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
