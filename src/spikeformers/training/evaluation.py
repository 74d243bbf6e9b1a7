"""What a trained model answers: accuracy, firing rates, and the classes of single images. Needs no Lightning."""

import json
import os
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
import torch
from timm.data import resolve_data_config
from torch import nn

from .._options import fitting, misfit
from ..data import CocoData, EventData, ImageData, MaskData, TestSet, data_type, test_loader
from ..data.loading import PADDING_LABEL, collate
from ..measure import Accuracy, Tally, answers_so_far, emissions
from ..measure.accuracy import TOP
from ..models import create_model, save_model
from ..models._checkpoint import describe, input_of_run
from ..models.shipped import find_shipped, shipped_file
from ..transforms.sta import Converted, is_converted, load_converted, save_converted
from .initial import trained_weights
from .parallel import at_least_float32


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
    its neurons emitted. Samples that are `not_finite`, or whose logits are not, count as wrong, and in the loss not at all."""

    answers: Accuracy
    tally: Tally
    not_finite: str = ""

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
        return "\n".join([*lines, self.firing_text(), *not_finite_text(self.not_finite)])


class NotFinite:
    """Counts the test samples that hold numbers that are not finite, or lead to such, and keeps the first names. A spiking network
    may answer NaN with finite logits, since NaN never fires."""

    def __init__(self, samples: TestSet):
        self.samples, self.count, self.names, self.seen = samples, 0, [], 0

    def add(self, finite: Sequence[bool]):
        """The next samples of `test_loader`, in its order."""
        for place in [place for place, fine in enumerate(finite) if not fine]:
            self.count += 1
            if len(self.names) < 3:
                self.names.append(self.samples.where(self.seen + place))
        self.seen += len(finite)

    def text(self) -> str:
        """For people; empty if there were none. Warns if there were some."""
        if not self.count:
            return ""
        text = (
            f"{self.count:,} samples hold or lead to numbers that are not finite (NaN or infinite) and count as wrong: "
            + ", ".join(self.names) + ", ..." * (self.count > len(self.names))
        )
        warnings.warn(text, stacklevel=3)
        return text


def not_finite_text(text: str) -> list[str]:
    """A line for the terminal, or none."""
    return [f"not finite   {text}"] if text else []


@dataclass
class Trained:
    """A model with what its checkpoint says about its data; `data` and `classes` are None if it says nothing."""

    model: nn.Module
    data: ImageData | EventData | CocoData | MaskData | None
    classes: list[str] | None


def load_trained(path: str | Path, early_classifiers: bool = False) -> Trained:
    """Reads best.ckpt or last.ckpt of a run, the former also by its folder, as converted.safetensors too, or a .safetensors file with its .json beside it.

    The model's `pretrained_cfg` says how its data were prepared, as timm reads it.

    Args:
        path: the file or the folder, or the name of a network that ships with the library.
        early_classifiers: whether the model gets the early classifiers that it was trained with, too.

    Raises:
        ValueError: there is no such file, it is none of these, or it holds no early classifiers and they are asked for.
    """
    if not Path(path).exists() and (key := find_shipped(str(path))):
        path = shipped_file(key)
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
        with fitting(f"{path} or the .json file beside it is damaged, or of another version"):
            model = load_converted(path) if is_converted(path) else create_model(checkpoint=path)
            with safetensors.safe_open(path, "pt") as file:
                known = json.loads((file.metadata() or {}).get("spikeformers", "{}"))
    else:
        try:
            content = read_checkpoint(path)
            config, known = dict(content["model_config"]), content["known"]
            architecture = config.pop("architecture")
            weights = trained_weights(content["state_dict"], early_classifiers)
        except Exception as error:  # torch.load raises many kinds, and a stranger's file may hold anything
            why = f": {error}" if isinstance(error, zipfile.BadZipFile) else ""
            raise ValueError(
                f"{path} is no checkpoint of `spikeformers train` ({type(error).__name__}{why}); "
                "published weights are read by `spikeformers import`"
            ) from None
        with fitting(f"{path} is damaged, or of another version"):
            model = create_model(architecture, **config)
        if early_classifiers:
            if not any(key.startswith("early.") for key in weights):
                raise ValueError(
                    f"{path} holds no early classifiers; train them with --training.early_classifiers true (or shared)"
                )
            model.add_early_classifiers(shared="early.0.head.weight" not in weights)
        with fitting(f"{path} is damaged: its weights are not those of its model"):
            model.load_state_dict(weights)
    data = known.get("data") if isinstance(known, dict) else known
    try:
        data = data and _described(data_type(data["name"]), data)
        classes = known.get("classes")
        if classes is not None and (not isinstance(classes, list) or not all(isinstance(name, str) for name in classes)):
            raise TypeError("classes that are no list of names")
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} describes its data in words that this version does not know ({error})") from None
    if not isinstance(model, Converted):
        describe(model, input_of_run(known, path), path)
        if isinstance(data, EventData) and data.size:
            describe(model, {"input_size": (data.channels, *data.size)}, path)
    model.to(memory_format=torch.channels_last)
    return Trained(model.eval(), data, classes)


UNASKED = {"download": False, "cache": "none"}
"""Settings of data that a checkpoint does not decide, since it may be a stranger's: whoever runs it says what is fetched and
which folders are written."""


def _described(kind, settings):
    """The configuration of data that a checkpoint describes, with at most as many workers as there are cores."""
    settings = {**settings, **{field.name: UNASKED[field.name] for field in fields(kind) if field.name in UNASKED}}
    if isinstance(settings.get("workers"), int):
        settings["workers"] = min(settings["workers"], os.cpu_count() or 1)
    return kind(**settings)


def read_checkpoint(path: Path) -> dict:
    """What torch has saved, without running code. Checksums are compared, which torch does not do: weights that a disk or a copy has
    changed are no weights. Raises many kinds of errors."""
    with zipfile.ZipFile(path) as records:
        if damaged := records.testzip():
            raise zipfile.BadZipFile(f"damaged: {damaged} in it has changed since it was written")
    return torch.load(path, map_location="cpu", weights_only=True)


def save_trained(trained: Trained, path: Path):
    """Writes PATH.safetensors and PATH.json as `save_model` does; data and classes go into the former's metadata."""
    known = {"data": asdict(trained.data), "classes": trained.classes}
    save = save_converted if isinstance(trained.model, Converted) else save_model
    save(trained.model, path, {"spikeformers": json.dumps(known)})


def best_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def preprocessing(model: nn.Module, weights: str | Path | None = None) -> tuple[dict[str, Any], str]:
    """How a network that no run has described wants its images, as settings of `ImageData`, and who says so.

    Args:
        model: a network of timm, or one with a `pretrained_cfg` like theirs.
        weights: the file that its weights are from, if not the library's own. A config.json beside it with a pretrained_cfg, as timm
            writes, counts; otherwise what is said of the library's weights is a guess.
    """
    given, said = getattr(model, "pretrained_cfg", None) or {}, "ImageNet's, since nothing says"
    if "mean" in given or "input_size" in given:
        said = "as the library describes its own weights of that network"
    if weights is not None:
        beside = Path(weights).with_name("config.json")
        described = _pretrained_cfg(beside)
        if described:
            given, said = {**given, **described}, f"as {beside} says"
    known = resolve_data_config({"mean": None}, pretrained_cfg=given)  # it refuses to say what it takes where nothing is given
    made_for = getattr(getattr(model, "patch_embed", None), "img_size", None)  # which may differ from what it was pretrained on
    settings = {
        "img_size": made_for[0] if made_for else known["input_size"][-1],
        "channels": known["input_size"][0],
        **{key: known[key] for key in ("mean", "std", "interpolation", "crop_pct")},
    }
    return settings, said


def _pretrained_cfg(path):
    with suppress(OSError, ValueError, RecursionError, AttributeError):
        found = json.loads(path.read_text(encoding="utf-8")).get("pretrained_cfg")
        wanted = {"input_size": tuple[int, int, int], "mean": tuple[float, ...], "std": tuple[float, ...], "interpolation": str, "crop_pct": float}
        if isinstance(found, dict):
            fitting_ones = {key: found[key] for key, hint in wanted.items() if key in found and not misfit(found[key], hint)}
            return {key: tuple(value) if isinstance(value, list) else value for key, value in fitting_ones.items()}
    return {}


def prepared_text(data: ImageData) -> str:
    """How images are prepared, in words."""
    numbers = (f"{name} {', '.join(f'{value:.4g}' for value in getattr(data, name))}" for name in ("mean", "std"))
    return f"{data.channels} x {data.img_size} x {data.img_size}, {', '.join(numbers)}, {data.interpolation}, crop_pct {data.crop_pct:.4g}"


def step_logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits [T, B, classes] in float32 (or float64), as every test computes them, within training and after it."""
    return at_least_float32(model(x, per_step=True))


def precision_of(model: nn.Module) -> str:
    """What a model computes in, such as float32: the type of its weights."""
    weights = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return str(weights.dtype).removeprefix("torch.")


@torch.no_grad()
def evaluate(model: nn.Module, samples: TestSet, device: str | torch.device = "cpu") -> Evaluation:
    """Tests a model in eval mode on every test sample once; the model is left on the device in eval mode.

    Raises:
        ValueError: no sample could be read.
    """
    model.to(device).eval()
    answers, broken = Accuracy(), NotFinite(samples)
    with emissions(model) as tally:
        for x, labels in test_loader(samples):
            x = x.to(device)
            logits = step_logits(model, x)
            own = [axis for axis in range(x.ndim) if axis != x.ndim - 4]  # all but the samples', [B, C, H, W] or [T, B, C, H, W]
            finite = x.isfinite().all(own) & logits.isfinite().all((0, 2))
            broken.add((finite.cpu() | (labels == PADDING_LABEL)).tolist())
            answers.update(answers_so_far(logits), labels, finite)
    must_have_read(answers.labelled)
    return Evaluation(answers, tally(answers.samples), broken.text())


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
        ValueError: the file is missing or no image (or recording), the checkpoint does not say how images are prepared, or the answer
            is no finite number.
    """
    if trained.data is None:
        raise ValueError("this checkpoint does not say how its images are prepared; use one that `train` wrote")
    x, _ = collate([(trained.data.read(path), 0)])
    logits = trained.model.eval()(x, per_step=True).mean(0)[0]
    if not (x.isfinite().all() and logits.isfinite().all()):
        raise ValueError(f"{path} holds or leads to numbers that are not finite (NaN or infinite), which are no answer")
    probabilities = logits.softmax(-1)
    best, classes = probabilities.topk(min(top, len(probabilities))), trained.classes
    return [(classes[index] if classes else f"class {index}", value) for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
