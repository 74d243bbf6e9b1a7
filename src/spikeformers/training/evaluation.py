"""What a trained model answers: accuracy, firing rates, and the classes of single images. Needs no Lightning."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import torch
from PIL import ImageOps
from torch import nn

from ..data import CocoData, EventData, ImageData, MaskData, TestSet, data_type, test_loader
from ..data.loading import collate, read_image
from ..measure import Accuracy, Tally, answers_so_far, emissions
from ..measure.accuracy import TOP
from ..models import create_model, save_model
from ..transforms.sta import Converted, is_converted, load_converted, save_converted
from .initial import trained_weights


class FiringRates:
    """For results that hold what neurons emitted, `tally`."""

    tally: Tally

    @property
    def firing_rates(self) -> dict[str, float]:
        """In [0, 1] by module name: share of a layer's neurons x time steps that emitted something, over all samples."""
        return self.tally.firing_rates

    @property
    def firing_rate(self) -> float:
        """The same of all neurons; 0 of a network without any."""
        return self.tally.firing_rate or 0.0

    def firing_text(self) -> str:
        """The mean in a line for the terminal."""
        return firing_text(self.firing_rate, len(self.firing_rates))


def firing_text(rate: float, layers: int) -> str:
    """A firing rate for the terminal."""
    return f"firing rate  {rate:.4f} over all neurons and time steps, in {layers} layers"


@dataclass
class Evaluation(FiringRates):
    """What a classifier's answers after 1, 2, ..., T steps are worth, the last being those of the logits averaged over time, and what
    its neurons emitted."""

    answers: Accuracy
    tally: Tally

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.answers.accuracy

    @property
    def accuracy_per_step(self) -> list[float]:
        """The same after the first 1, 2, ..., T steps."""
        return self.answers.per_step

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return self.answers.loss

    @property
    def samples(self) -> int:
        """How many were tested."""
        return self.answers.labelled

    def as_text(self, data: str) -> str:
        """Lines for the terminal; `data` is the data set's name."""
        lines = [
            f"accuracy     {self.accuracy:.2%} of {self.samples:,} test samples ({data})",
            f"by step      {per_step(self.accuracy_per_step)}",
            f"loss         {self.loss:.4f}",
        ]
        if self.answers.classes > TOP:
            lines.insert(1, f"top {TOP}        {self.answers.top5:.2%}")
        return "\n".join([*lines, self.firing_text()])


@dataclass
class Trained:
    """A model with what its checkpoint says about its data; `data` and `classes` are None if it says nothing."""

    model: nn.Module
    data: ImageData | EventData | CocoData | MaskData | None
    classes: list[str] | None


def load_trained(path: str | Path, early_classifiers: bool = False) -> Trained:
    """Reads best.ckpt or last.ckpt of a run, the former also by its folder, as converted.safetensors too, or a .safetensors file with its .json beside it.

    Args:
        path: the file or the folder.
        early_classifiers: whether the model gets the early classifiers that it was trained with, too.

    Raises:
        ValueError: there is no such file, it is none of these, or it holds no early classifiers and they are asked for.
    """
    path = Path(path)
    for name in ("best.ckpt", "converted.safetensors"):
        if (path / name).is_file():
            path = path / name
            break
    if not path.is_file():
        raise ValueError(
            f"no checkpoint {path}; training leaves best.ckpt and last.ckpt in its run folder, conversion converted.safetensors"
        )
    if path.suffix == ".safetensors":
        if early_classifiers:
            raise ValueError(
                f"{path} holds no early classifiers, which exports leave out; give best.ckpt or last.ckpt of the run"
            )
        model = load_converted(path) if is_converted(path) else create_model(checkpoint=path)
        with safetensors.safe_open(path, "pt") as file:
            known = json.loads((file.metadata() or {}).get("spikeformers", "{}"))
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            config, known = dict(content["model_config"]), content["known"]
            architecture = config.pop("architecture")
            weights = trained_weights(content["state_dict"], early_classifiers)
        except Exception as error:  # torch.load raises many kinds, and a stranger's file may hold anything
            raise ValueError(
                f"{path} is no checkpoint of `spikeformers train` ({type(error).__name__}); "
                "published weights are read by `spikeformers import`"
            ) from None
        model = create_model(architecture, **config)
        if early_classifiers:
            if not any(key.startswith("early.") for key in weights):
                raise ValueError(
                    f"{path} holds no early classifiers; train them with --training.early_classifiers true (or shared)"
                )
            model.add_early_classifiers(shared="early.0.head.weight" not in weights)
        model.load_state_dict(weights)
    data = known.get("data")
    try:
        data = data and data_type(data["name"])(**data)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} describes its data in words that this version does not know ({error})") from None
    model.to(memory_format=torch.channels_last)
    return Trained(model.eval(), data, known.get("classes"))


def save_trained(trained: Trained, path: Path):
    """Writes PATH.safetensors and PATH.json as `save_model` does; data and classes go into the former's metadata."""
    known = {"data": asdict(trained.data), "classes": trained.classes}
    save = save_converted if isinstance(trained.model, Converted) else save_model
    save(trained.model, path, {"spikeformers": json.dumps(known)})


def best_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


@torch.no_grad()
def evaluate(model: nn.Module, samples: TestSet, device: str | torch.device = "cpu") -> Evaluation:
    """Tests a model in eval mode on every test sample once; the model is left on the device in eval mode.

    Raises:
        ValueError: no sample could be read.
    """
    model.to(device).eval()
    answers = Accuracy()
    with emissions(model) as tally:
        for x, labels in test_loader(samples):
            logits = model(x.to(device), per_step=True).float()
            answers.update(answers_so_far(logits), labels)
    must_have_read(answers.labelled)
    return Evaluation(answers, tally(answers.samples))


def must_have_read(samples: int):
    """
    Raises:
        ValueError: a test has come to its end without any sample.
    """
    if not samples:
        raise ValueError("there was no test sample that could be read; check data.root and the other data.* options")


def per_step(accuracies: list[float]) -> str:
    """Accuracies after the first 1, 2, ..., T steps, for the terminal."""
    return ", ".join(f"{accuracy:.2%}" for accuracy in accuracies) + f" after 1 to {len(accuracies)} time steps"


@torch.no_grad()
def predict(trained: Trained, path: str | Path, top: int = 5) -> list[tuple[str, float]]:
    """The `top` likeliest classes of an image or event file with their probabilities, likeliest first. Photos are turned upright as
    the camera says.

    Raises:
        ValueError: the file is missing or no image (or recording), or the checkpoint does not say how images are prepared.
    """
    if trained.data is None:
        raise ValueError("this checkpoint does not say how its images are prepared; use one that `train` wrote")
    if isinstance(trained.data, ImageData):
        sample = trained.data.transform(training=False)(ImageOps.exif_transpose(read_image(path)))
    else:
        sample = trained.data.read(path)
    x, _ = collate([(sample, 0)])
    probabilities = trained.model.eval()(x, per_step=True).mean(0)[0].softmax(-1)
    best, classes = probabilities.topk(min(top, len(probabilities))), trained.classes
    return [(classes[index] if classes else f"class {index}", value) for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
