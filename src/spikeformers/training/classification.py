"""Learning to classify."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import TestSet, TrainingSet
from ..evaluation.classification import Evaluation, per_step, step_logits
from ..evaluation.results import at_least_float32
from ..measure import Accuracy
from ..models import list_tasks
from .rates import rate_penalty, rates_of
from .recipe import Recipe, Training
from .task import Learning, Objective, register_learning
from .teacher import answers_to, teacher_of

OPTIONS = (
    *(
        "loss",
        "tet_lambda",
        "tet_mean",
        "label_smoothing",
        "class_weights",
        "mixup",
        "cutmix",
        "mixup_prob",
        "mixup_off_epoch",
        "teacher",
        "teacher_weights",
    ),
    *(
        "teacher_view",
        "rate_penalty",
        "rate_target",
        "distillation",
        "distillation_alpha",
        "distillation_tau",
        "early_classifiers",
        "early_weight",
    ),
)
"""Of `Training`."""


class ClassificationObjective(Objective):
    """Of a model that maps images [B, C, H, W] or sequences [T, B, C, H, W] to logits [B, classes]. What is counted [3] is loss,
    correct answers and samples; `test_answers` is what the test found.

    Args:
        model: that learns.
        recipe: of the run.
        train_set: its samples.
    """

    columns = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    counters = 3

    def __init__(self, model: nn.Module, recipe: Recipe, train_set: TrainingSet):
        super().__init__(model, recipe, train_set)
        training = recipe.training
        self.class_weights = class_weights(training, train_set)
        self.mixup = None
        if training.mixup or training.cutmix:
            self.mixup = Mixup(
                mixup_alpha=training.mixup,
                cutmix_alpha=training.cutmix,
                prob=training.mixup_prob,
                label_smoothing=training.label_smoothing,
                num_classes=len(self.classes),
            )
        taught = training.teacher or training.teacher_weights
        self.answers = None  # of the teacher, [training samples, classes], where it looks at each of them once
        train_set.numbered = bool(taught) and training.teacher_view == "plain"
        self.teacher = teacher_of(training, len(self.classes), recipe.data) if taught else None

    def start(self, device: torch.device) -> None:
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(device)
        if self.teacher:
            self.teacher = self.teacher.to(device, memory_format=torch.channels_last)
            if self.train_set.numbered:
                self.answers = answers_to(self.teacher, self.train_set, device)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], epoch: int) -> tuple[Tensor, Tensor]:
        x, labels = batch
        training = self.recipe.training
        if self.answers is not None:
            labels, places = labels.unbind(1)
        targets = one_hot(labels, len(self.classes), training.label_smoothing)
        if self.mixup and not 0 < training.mixup_off_epoch <= epoch:
            x, targets = mix(self.mixup, x, labels)
        with rates_of(model) if training.rate_penalty else nullcontext() as rates:
            outputs, early = model(x, per_step=training.loss == "tet"), []
        if model.early:
            outputs, early = outputs
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)  # the last one learns from the teacher
        loss = classification_loss(outputs[0], targets, training, self.class_weights)
        if self.teacher:
            taught = self.teacher(x) if self.answers is None else self.answers[places.cpu()].float().to(x.device)
            alpha = training.distillation_alpha
            loss = (1 - alpha) * loss + alpha * distillation_loss(outputs[-1], taught, training)
        for answer in early:
            loss = loss + training.early_weight * classification_loss(answer, targets, training, self.class_weights)
        if rates:
            loss = loss + training.rate_penalty * rate_penalty(rates, training.rate_target)
        logits = outputs[0] if outputs[0].ndim == 2 else outputs[0].mean(0)
        return loss, counted(loss.detach(), logits.detach(), targets.argmax(-1))

    def train_metrics(self, sums: Sequence[float]) -> dict[str, float]:
        loss, correct, samples = sums
        return {"train_loss": loss / samples, "train_accuracy": correct / samples}

    def start_test(self, device: torch.device) -> None:
        self.test_answers = Accuracy(1, len(self.classes), device)

    def test(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
        x, labels = batch
        self.test_answers.update(step_logits(model, x).mean(0), labels)

    def test_metrics(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        answers = Accuracy.from_tensor(total(self.test_answers.to_tensor()), 1, len(self.classes))
        return {"val_loss": answers.loss, "val_accuracy": answers.accuracy}

    def samples_text(self) -> str:
        return f"samples {'x'.join(map(str, self.train_set.shape))}"


def one_hot(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Labels [B] -> probabilities [B, classes], of which `smoothing` is spread over all classes.

    Args:
        labels: of the samples.
        classes: how many there are.
        smoothing: share that is spread.
    """
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def mix(mixup: Mixup, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """timm's mixup or CutMix of a batch [B, C, H, W], or of sequences [T, B, C, H, W], in which all time steps are mixed alike;
    labels [B] become probabilities [B, classes].

    Args:
        mixup: timm's, with its settings.
        x: the batch.
        labels: of its samples.
    """
    if x.ndim == 4:
        return mixup(x, labels)
    steps, batch, channels, height, width = x.shape
    x = x.transpose(0, 1).reshape(batch, steps * channels, height, width)
    x, targets = mixup(x, labels)
    return x.view(batch, steps, channels, height, width).transpose(0, 1), targets


def class_weights(training: Training, train_set: TrainingSet) -> Tensor | None:
    """What the loss of each class is multiplied by [classes], None for nothing. Balanced weights are 1 on the average of the samples, and 0
    for classes without any.

    Raises:
        ValueError: there are not as many as classes.
    """
    given, classes = training.class_weights, len(train_set.classes)
    if given == "none":
        return None
    if given == "balanced":
        there = np.bincount(np.asarray(train_set.source.labels, int)[train_set.indices], minlength=classes)
        given = np.where(there > 0, there.sum() / classes / there.clip(min=1), 0.0).tolist()
    if len(given) != classes or not any(given):
        raise ValueError(
            f"training.class_weights has {len(given)} numbers, and the data have {classes} classes; give one for each, not all 0, or balanced"
        )
    return torch.tensor(given)


def classification_loss(logits: Tensor, targets: Tensor, training: Training, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy in nats of logits [B, classes] against probabilities [B, classes]; or TET's loss (Deng et al., ICLR 2022,
    Eq. 10) of logits [T, B, classes]: (1 - lambda) * mean over t of cross-entropy + lambda * mean of (logits - tet_mean)^2.

    Args:
        logits: of the batch, for TET of every step.
        targets: probabilities.
        training: says which loss.
        weights: of the classes [classes], in the cross-entropy, which is the mean over samples with them as without.
    """
    logits = at_least_float32(logits)
    weights = None if weights is None else weights.to(logits.dtype)
    if logits.ndim == 2:
        return F.cross_entropy(logits, targets, weights)
    entropy = F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits), 1), weights)
    distance = (logits - training.tet_mean).square().mean()
    return (1 - training.tet_lambda) * entropy + training.tet_lambda * distance


def distillation_loss(logits: Tensor, taught: Tensor, training: Training) -> Tensor:
    """How far logits [B, classes] or [T, B, classes] (averaged over time) are from the teacher's `taught` [B, classes].

    Hard: cross-entropy with the teacher's likeliest class. Soft: the Kullback-Leibler divergence at temperature tau, times
    tau^2, divided by the number of logits (Touvron et al., ICML 2021).

    Args:
        logits: the student's.
        taught: the teacher's.
        training: says which kind, and tau.
    """
    logits = at_least_float32(logits if logits.ndim == 2 else logits.mean(0))
    if training.distillation == "hard":
        return F.cross_entropy(logits, taught.argmax(-1))
    tau = training.distillation_tau
    ours, theirs = (logits / tau).log_softmax(-1), (taught / tau).log_softmax(-1)
    return F.kl_div(ours, theirs, reduction="sum", log_target=True) * tau**2 / logits.numel()


def counted(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Of a batch's mean loss [], logits [B, classes] and labels [B] what is added up [3]: loss, correct answers, samples. Does not
    wait for the device.

    Args:
        loss, logits, labels: of the batch.
    """
    correct = (logits.argmax(-1) == labels).sum()
    return torch.stack(
        [loss.float() * len(labels), correct.float(), torch.full_like(loss, len(labels), dtype=torch.float32)]
    )


def _model_options(recipe, train_set):
    if recipe.model.name in list_tasks():
        raise ValueError(
            f"{recipe.model.name} does not classify, and the data {recipe.data.name} have a class for each sample; give a model that "
            "`spikeformers list` shows, or data of another kind"
        )
    *steps, channels, _, _ = train_set.shape
    return {
        "num_classes": len(train_set.classes),
        "in_chans": channels,
        **({"time_steps": steps[0]} if steps else {}),
        **recipe.model.kwargs,
    }


def _prepare(model, recipe, train_set, parts):
    data, training = recipe.data, recipe.training
    if training.early_classifiers:
        model.add_early_classifiers(shared=training.early_classifiers == "shared")
    if getattr(model, "distillation", False) and not (training.teacher or training.teacher_weights):
        raise ValueError(
            "the model has a distillation head, which needs a teacher to train; leave out distillation, or give "
            "training.teacher"
        )
    if training.teacher_view == "plain" and (training.mixup or training.cutmix):
        raise ValueError(
            "a teacher that sees plain images has no answer to mixed ones; leave out mixup and cutmix, or "
            "training.teacher_view plain"
        )
    if training.teacher and len(train_set.shape) == 4:
        raise ValueError(
            "a teacher of timm looks at images, not at sequences of event frames; leave out training.teacher"
        )
    if (training.mixup or training.cutmix) and data.batch_size // parts % 2:
        raise ValueError(
            f"mixup and cutmix mix pairs of samples; data.batch_size {data.batch_size} must be a multiple of {2 * parts}"
        )


@torch.no_grad()
def _try_out(model: nn.Module, test_set: TestSet) -> None:
    logits = model.eval()(test_set.data.collate([test_set[0]])[0])
    if logits.shape[-1] != len(test_set.classes):
        raise ValueError(
            f"the model has {logits.shape[-1]} outputs for {len(test_set.classes)} classes; leave out num_classes"
        )


def _score(row):
    return row["val_accuracy"], -row["val_loss"]


def _progress(metrics):
    return f"loss {metrics['train_loss']:.3f}, accuracy {metrics['train_accuracy']:.1%}"


def _epoch_text(row):
    return (
        f"train loss {row['train_loss']:.3f}, accuracy {row['train_accuracy']:6.2%}"
        f"  test loss {row['val_loss']:.3f}, accuracy {row['val_accuracy']:6.2%}"
    )


def _summary(result: Evaluation, last: dict) -> dict:
    return {
        "accuracy": result.accuracy,
        "loss": result.loss,
        "accuracy_per_step": result.accuracy_per_step,
        "last_accuracy": last["val_accuracy"],
        "test_samples": result.samples,
        "not_finite": result.not_finite,
        "firing_rate": result.firing_rate,
        "firing_rates": result.firing_rates,
    }


def _summary_lines(summary):
    last, best = f"{summary['last_accuracy']:.2%}", f"{summary['accuracy']:.2%}"
    if "held_out" in summary:
        return [
            f"accuracy     {best} of {summary['test_samples']:,} test samples after the best epoch ({summary['best_epoch']})",
            f"held out     {summary['best_accuracy']:.2%} of {summary['held_out']:,} training samples, which chose it; {last} after the last",
            f"by step      {per_step(summary['accuracy_per_step'])}",
        ]
    return [
        f"accuracy     {last} of {summary['test_samples']:,} test samples after the last epoch, {best} after the best ({summary['best_epoch']})",
        f"by step      {per_step(summary['accuracy_per_step'])}",
    ]


register_learning(
    Learning(
        "classification",
        options=OPTIONS,
        model_options=_model_options,
        prepare=_prepare,
        try_out=_try_out,
        objective=ClassificationObjective,
        score=_score,
        epoch_text=_epoch_text,
        summary=_summary,
        summary_lines=_summary_lines,
        progress=_progress,
    )
)
