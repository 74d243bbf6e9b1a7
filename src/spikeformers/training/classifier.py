"""Learning to classify."""

from contextlib import nullcontext

import torch
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import TestSet, TrainingSet
from ..evaluation.classification import evaluate, per_step, step_logits
from ..evaluation.results import at_least_float32
from ..measure import Accuracy
from ..models import list_tasks
from .learner import Learner
from .rates import rate_penalty, rates_of
from .recipe import Recipe, Training
from .teacher import answers_to, teacher_of


class Classifier(Learner):
    """A model that maps images [B, C, H, W] or sequences [T, B, C, H, W] to logits [B, classes]. `sums` [3] hold
    loss, correct answers and samples of training, `test_answers` what the test found.

    Args:
        model: that learns.
        recipe: of the run.
        train_set, test_set: its samples.
    """

    columns = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    counters = 3

    def __init__(self, model: nn.Module, recipe: Recipe, train_set: TrainingSet, test_set: TestSet):
        super().__init__(model, recipe, train_set, test_set)
        training = recipe.training
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
        self._teacher = [teacher_of(training, len(self.classes), recipe.data)] if taught else []  # a list hides it from state_dict

    @classmethod
    def model_options(cls, recipe, train_set):
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

    @classmethod
    def prepare(cls, model, recipe, train_set, parts):
        data, training = recipe.data, recipe.training
        if training.early_classifiers:
            model.add_early_classifiers(shared=training.early_classifiers == "shared")
        if getattr(model, "distillation", False) and not (training.teacher or training.teacher_weights):
            raise ValueError("the model has a distillation head, which needs a teacher to train; leave out distillation, or give "
                             "training.teacher")
        if training.teacher_view == "plain" and (training.mixup or training.cutmix):
            raise ValueError("a teacher that sees plain images has no answer to mixed ones; leave out mixup and cutmix, or "
                             "training.teacher_view plain")
        if training.teacher and len(train_set.shape) == 4:
            raise ValueError("a teacher of timm looks at images, not at sequences of event frames; leave out training.teacher")
        if (training.mixup or training.cutmix) and data.batch_size // parts % 2:
            raise ValueError(
                f"mixup and cutmix mix pairs of samples; data.batch_size {data.batch_size} must be a multiple of {2 * parts}"
            )

    @classmethod
    @torch.no_grad()
    def try_out(cls, model, test_set):
        logits = model.eval()(test_set.data.collate([test_set[0]])[0])
        if logits.shape[-1] != len(test_set.classes):
            raise ValueError(
                f"the model has {logits.shape[-1]} outputs for {len(test_set.classes)} classes; leave out num_classes"
            )

    @classmethod
    def tested_summary(cls, model, test_set, device, last):
        result = evaluate(model, test_set, device)
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

    @classmethod
    def summary_lines(cls, summary):
        last, best = f"{summary['last_accuracy']:.2%}", f"{summary['accuracy']:.2%}"
        if "held_out" in summary:
            return [
                f"accuracy     {best} of {summary['test_samples']:,} test samples after the best epoch ({summary['best_epoch']})",
                f"held out     {summary['best_accuracy']:.2%} of {summary['held_out']:,} training samples, which chose it; {last} after the last",
                f"by step      {per_step(summary['accuracy_per_step'])}",
            ]
        return [
            f"accuracy     {last} of {summary['test_samples']:,} test samples after the last epoch, {best} after the best "
            f"({summary['best_epoch']})",
            f"by step      {per_step(summary['accuracy_per_step'])}",
        ]

    @staticmethod
    def score(row):
        return row["val_accuracy"], -row["val_loss"]

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def on_fit_start(self):
        super().on_fit_start()
        self._teacher = [teacher.to(self.device, memory_format=torch.channels_last) for teacher in self._teacher]
        if self.train_set.numbered:
            with self.trainer.precision_plugin.forward_context():
                self.answers = answers_to(self._teacher[0], self.train_set, self.device)

    def loss(self, batch):
        x, labels = batch
        training = self.recipe.training
        if self.answers is not None:
            labels, places = labels.unbind(1)
        targets = one_hot(labels, len(self.classes), training.label_smoothing)
        if self.mixup and not 0 < training.mixup_off_epoch <= self.current_epoch:
            x, targets = mix(self.mixup, x, labels)
        with rates_of(self.model) if training.rate_penalty else nullcontext() as rates:
            outputs, early = self.model(x, per_step=training.loss == "tet"), []
        if self.model.early:
            outputs, early = outputs
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)  # the last one learns from the teacher
        loss = classification_loss(outputs[0], targets, training)
        if self._teacher:
            taught = self._teacher[0](x) if self.answers is None else self.answers[places.cpu()].float().to(x.device)
            alpha = training.distillation_alpha
            loss = (1 - alpha) * loss + alpha * distillation_loss(outputs[-1], taught, training)
        for answer in early:
            loss = loss + training.early_weight * classification_loss(answer, targets, training)
        if rates:
            loss = loss + training.rate_penalty * rate_penalty(rates, training.rate_target)
        logits = outputs[0] if outputs[0].ndim == 2 else outputs[0].mean(0)
        count(self.sums, loss.detach(), logits.detach(), targets.argmax(-1))
        return loss

    def train_metrics(self, sums):
        loss, correct, samples = sums
        return {"train_loss": loss / samples, "train_accuracy": correct / samples}

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        self.test_answers = Accuracy(1, len(self.classes), self.device)

    def test_batch(self, batch):
        x, labels = batch
        self.test_answers.update(step_logits(self.exported, x).mean(0), labels)

    def test_metrics(self):
        sums = self.trainer.strategy.reduce(self.test_answers.to_tensor(), reduce_op="sum")
        answers = Accuracy.from_tensor(sums, 1, len(self.classes))
        return {"val_loss": answers.loss, "val_accuracy": answers.accuracy}

    @staticmethod
    def progress(metrics):
        return f"loss {metrics['train_loss']:.3f}, accuracy {metrics['train_accuracy']:.1%}"

    @staticmethod
    def epoch_text(row):
        return (
            f"train loss {row['train_loss']:.3f}, accuracy {row['train_accuracy']:6.2%}"
            f"  test loss {row['val_loss']:.3f}, accuracy {row['val_accuracy']:6.2%}"
        )

    @property
    def time_steps(self):
        """T of the sequences, or how often the model shows itself an image."""
        return self.train_set.shape[0] if len(self.train_set.shape) == 4 else self.model.time_steps

    def parameters_text(self):
        learning = sum(p.numel() for p in self.model.early.parameters())
        parameters = f"{sum(p.numel() for p in self.model.parameters()) - learning:,} parameters"
        return parameters + f" and {learning:,} of early classifiers" * bool(learning)

    def samples_text(self):
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


def classification_loss(logits: Tensor, targets: Tensor, training: Training) -> Tensor:
    """Cross-entropy in nats of logits [B, classes] against probabilities [B, classes]; or TET's loss (Deng et al., ICLR 2022,
    Eq. 10) of logits [T, B, classes]: (1 - lambda) * mean over t of cross-entropy + lambda * mean of (logits - tet_mean)^2.

    Args:
        logits: of the batch, for TET of every step.
        targets: probabilities.
        training: says which loss.
    """
    logits = at_least_float32(logits)
    if logits.ndim == 2:
        return F.cross_entropy(logits, targets)
    entropy = F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits), 1))
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


def count(sums: Tensor, loss: Tensor, logits: Tensor, labels: Tensor):
    """Adds a batch's mean loss [], logits [B, classes] and labels [B] to sums [3]: loss, correct answers, samples. Does not
    wait for the device.

    Args:
        sums: added to in place.
        loss, logits, labels: of the batch.
    """
    sums[0] += loss.float() * len(labels)
    sums[1] += (logits.argmax(-1) == labels).sum()
    sums[2] += len(labels)
