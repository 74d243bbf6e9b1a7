"""Converting a pretrained network, and what it answers at every time step and has cost by then."""

import itertools
import json
import os
import random
import re
import urllib.error
import urllib.request
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from .._files import as_csv, owned, write_atomically, write_json
from .._options import Range, check_options
from ..data import ImageData, TestSet
from ..data.images import SUFFIXES
from ..data.loading import collate
from ..data.reading import files_in, tell_left_out
from ..measure import Accuracy, Constants, Tally, following
from ..measure.operation import CHARGES
from ..transforms.sta import Converted, classes_of, convert, logits_of, readable, takes_texts, with_texts
from ..transforms.sta.convert import check_options as check_conversion
from ..transforms.sta.sources import LIBRARIES
from ..transforms.sta.zero_shot import PROMPTS
from .evaluation import Trained, best_device, load_trained, save_trained
from .signals import listening

FEW = 32  # calibration images that are too few


@dataclass
class Conversion:
    """What `run` converts, by what, and how it is tested.

    Args:
        model: timm:NAME (or NAME alone), torchvision:NAME, or transformers:FOLDER_OR_REPOSITORY[:CLASS].
        kwargs: for creating the model, such as {num_classes: 10}.
        weights: a file with its parameters, if not the library's pretrained ones.
        calib: folder of images, however deep, to choose thresholds by; without it the training images of the data are taken.
        eval: folder of test images that holds a folder for each class, in the order of the model's classes.
        classes: names of the classes of zero-shot classification (CLIP, SigLIP), in the order of the test images' folders; those
            folders' names by default, or ImageNet's words for its identifiers.
        prompts: texts that are embedded for each class, with {} in its place.
        calib_samples: how many images choose thresholds.
        samples: how many test images, evenly spread; 0 for all.
        time_steps: T, or several that each get thresholds of their own.
        levels: thresholds that a neuron may emit in one step, of either sign: 1 for ternary spikes, more for bursts.
        potential: at the start, in thresholds.
        spiking: hybrid, or full: functions by networks of rectified units alone.
        mac: pJ of a multiplication with addition.
        ac: pJ of an addition.
    """

    model: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    calib: str | None = None
    eval: str | None = None
    classes: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=lambda: list(PROMPTS))
    calib_samples: int = 256
    samples: int = 1000
    time_steps: int | list[int] = 32
    levels: int = 4
    potential: float = 0.5
    spiking: str = "hybrid"
    mac: float = Constants.mac
    ac: float = Constants.ac

    ranges: ClassVar = {
        "calib_samples": Range(least=1, most=10**7),
        "samples": Range(least=0),
        **dict.fromkeys(("time_steps", "levels"), Range(least=1)),
        "potential": Range(least=0, below=1),
        **dict.fromkeys(("mac", "ac"), Range(least=0, most=1e6)),
    }

    def __post_init__(self):
        check_options(self, "", self.ranges)
        check_conversion(self.time_steps, self.levels, self.potential, self.spiking)


def run(
    settings: Conversion,
    model: nn.Module,
    data: ImageData,
    named: bool = False,
    run_dir: str | Path | None = None,
    resume: bool = False,
) -> tuple["AnyTime | None", Path]:
    """Converts a network, saves it as converted.safetensors, and tests it at every time step.

    Writes any_time.json after every batch, from which `resume` goes on, and any_time.csv at the end.

    Args:
        model: from `load_source`.
        data: how images are prepared and, if it is `named`, where those are that `calib` and `eval` do not say.
        run_dir: runs/convert/MODEL by default.

    Returns:
        An `AnyTime` and the path of the converted network; None instead of the former if there is nothing to test on.

    Raises:
        ValueError: there is nothing to calibrate by, run_dir holds something else, or as for `convert`.
    """
    must_be_possible(settings, named, run_dir, resume)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{settings.model} is {type(model).__name__}, not a network (torch.nn.Module)")
    with listening(), owned(folder_of(settings, run_dir)):
        return _run(settings, model, data, named, folder_of(settings, run_dir), resume)


def folder_of(settings: Conversion, run_dir: str | Path | None = None) -> Path:
    """Where a conversion is written."""
    return Path(run_dir or Path("runs") / "convert" / re.sub(r"[^\w.-]+", "_", settings.model))


def must_be_had(name: str, weights: str | Path | None) -> None:
    """Says what `load_source` is going to fetch from a network, and that there is none within seconds, where libraries try for a minute.

    Raises:
        ValueError: what it needs is not on this disk, and its server cannot be reached.
    """
    found = _to_fetch(name, weights)
    if found is None:
        return
    what, url = found
    instead = "give a file with --weights" if what == "pretrained weights" else "give a folder that holds them: transformers:FOLDER"
    advice = f"fetch them once where there is a network (they are then kept in the library's cache), or {instead}"
    offline = [key for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(key, "").upper() in ("1", "ON", "YES", "TRUE")]
    if offline:
        raise ValueError(f"the {what} of {name} are not on this disk, and {offline[0]} forbids to download them; {advice}, or unset {offline[0]}")
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=REACHED_WITHIN).close()
    except urllib.error.HTTPError:  # it answers
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(f"the {what} of {name} are not on this disk, and {url} cannot be reached ({reason}); {advice}") from None
    print(f"{name}: fetching its {what} from {url}; they are kept in the library's cache", flush=True)


REACHED_WITHIN = 5.0  # seconds


def _to_fetch(name, weights):
    """What is missing on this disk and the address of who has it; None if nothing is, or the library does not know the name."""
    from huggingface_hub import constants, try_to_load_from_cache

    library, _, rest = name.partition(":")
    if library not in LIBRARIES or not rest:
        library, rest = "timm", name

    def cached(repository, *files):
        return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)

    try:
        if library == "transformers":
            place, _, last = rest.rpartition(":")
            place = rest if not place or not last[:1].isupper() else place
            if Path(place).is_dir() or place.startswith((".", "/", "~")) or cached(place, "config.json"):
                return None
            return "configuration and weights", f"{constants.ENDPOINT}/{place}"
        if weights is not None:
            return None
        if library == "timm":
            import timm

            known = timm.models.get_pretrained_cfg(rest)
            if known is None or not known.has_weights or not known.hf_hub_id or cached(known.hf_hub_id, "model.safetensors", "pytorch_model.bin"):
                return None
            return "pretrained weights", f"{constants.ENDPOINT}/{known.hf_hub_id}"
        import torchvision

        url = torchvision.models.get_model_weights(rest).DEFAULT.url
        there = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        return None if there.is_file() else ("pretrained weights", url)
    except (ValueError, RuntimeError, AttributeError):  # no such name, of which `load_source` says what there is
        return None


def must_be_possible(settings: Conversion, named: bool, run_dir: str | Path | None, resume: bool) -> None:
    """What can be said before there is a network, which may have to be fetched.

    Raises:
        ValueError: as for `run`.
    """
    if settings.calib is None and not named:
        raise ValueError("there is nothing to choose thresholds by: give --calib FOLDER, or a data set by --data.name and --data.root")
    for option, place in (("--calib", settings.calib), ("--eval", settings.eval)):
        if place is not None and not Path(place).is_dir():
            raise ValueError(f"{option} {place} is no folder; give one that holds images")
    if settings.calib is not None and not any(path.suffix.lower() in IMG_EXTENSIONS for path in Path(settings.calib).rglob("*")):
        raise ValueError(f"there are no images in the folder {settings.calib}")
    if settings.weights is not None and not Path(settings.weights).is_file():
        raise ValueError(f"there is no file {settings.weights} as --weights")
    folder = folder_of(settings, run_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--run_dir {folder} is a file; give a folder")
    if (folder / "converted.safetensors").exists() and not resume:
        raise ValueError(f"{folder} holds a conversion already; continue it with --resume, or choose another --run_dir")


def _earlier(table):
    """What an interrupted test has written: its settings, and sums so far."""
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
        settings, sums = content["settings"], content["any_time"]
        if not isinstance(settings, dict):
            raise TypeError("settings that are none")
        return settings, AnyTime.from_dict(sums)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{table} is damaged ({type(error).__name__}: {error}); delete it, and the test begins anew") from None


def _run(settings, model, data, named, folder, resume):
    source = data
    if settings.eval is not None:
        data = replace(data, name="folder", root=settings.eval, split=".")
    elif not named:
        data = replace(data, name="folder")  # of which `eval` says that it needs a root
    path, table = folder / "converted.safetensors", folder / "any_time.json"
    wanted, so_far = json.loads(json.dumps({**asdict(settings), "data": asdict(data)})), None
    if resume and table.is_file():
        earlier, so_far = _earlier(table)
        if changed := [key for key, value in wanted.items() if earlier.get(key) != value]:
            raise ValueError(f"{folder} holds a conversion with other settings ({', '.join(changed)}); choose another --run_dir")
    samples = _test_set(settings, data) if named or settings.eval else None
    if takes_texts(model):
        model = with_texts(model, settings.classes or readable(_classes(samples)), settings.prompts)
    elif settings.classes:
        raise ValueError(f"--classes names the classes of networks that take texts, such as CLIP, which {settings.model} does not")
    if samples is not None and classes_of(model) != len(samples.classes):
        raise ValueError(f"{settings.model} has {classes_of(model)} classes and the test images {len(samples.classes)}")
    device = best_device()
    model.to(device)
    if path.is_file():
        trained = load_trained(path)
    else:
        images = _calibration(settings, source)
        print(
            f"{settings.model}: choosing thresholds by {len(images):,} images; neurons emit up to {settings.levels} of them in a step, of "
            f"either sign ({2 * settings.levels + 1} levels)",
            flush=True,
        )
        batches = [x.to(device) for x in images.split(data.batch_size)]
        _try(model, batches[0][:1])
        if len(images) < min(FEW, settings.calib_samples):
            warnings.warn(
                f"{len(images)} calibration images show few of the values that neurons have to transmit; larger ones saturate, whatever "
                f"T is (some hundred images are better)",
                stacklevel=2,
            )
        how = (settings.time_steps,) if isinstance(settings.time_steps, int) else (tuple(settings.time_steps),)
        converted = convert(model, batches, *how, levels=settings.levels, potential=settings.potential, spiking=settings.spiking)
        trained = Trained(converted, data, samples.classes if samples else settings.classes or None)
        save_trained(trained, path)
        write_json(table, {"settings": wanted, "any_time": AnyTime().to_dict()})
    if samples is None:
        return None, path
    loader = _loader(samples, data, settings.samples)
    with tqdm(total=len(loader), initial=so_far.batches if so_far else 0, unit="batch", leave=False) as bar:

        def keep(result):
            write_json(table, {"settings": wanted, "any_time": result.to_dict()})
            bar.update()

        moved = ((x.to(device), labels) for x, labels in loader)
        result = any_time(trained.model.to(device), model, moved, so_far=so_far, done=keep)
    write_atomically(folder / "any_time.csv", result.csv(Constants(settings.mac, settings.ac)).encode())
    return result, path


def _test_set(settings: Conversion, data: ImageData) -> TestSet:
    try:
        return TestSet(data)
    except ValueError as error:
        if settings.eval is None:
            raise
        raise ValueError(f"--eval {settings.eval} must hold a folder of images for each class ({error})") from None


def _classes(samples: TestSet | None) -> list[str]:
    if samples is None:
        raise ValueError("zero-shot classification needs the classes' names: give --classes '[cat, dog]', or --eval FOLDER")
    return samples.classes


def _try(model: nn.Module, x: Tensor) -> None:
    try:
        with torch.no_grad():
            logits_of(model(x))
    except (RuntimeError, AssertionError) as error:
        size = " x ".join(map(str, x.shape[1:]))
        raise ValueError(f"the network does not take images of {size} ({error}); see --data.img_size and --data.channels") from None


def _calibration(settings: Conversion, data: ImageData) -> Tensor:
    """Images [N, C, H, W] to choose thresholds by, prepared as for testing."""
    pick = random.Random(0)
    if settings.calib is None:
        source, transform = data.source(training=True), data.transform(training=False)
        places = pick.sample(range(len(source)), min(settings.calib_samples, len(source)))
        return torch.stack([transform(source[place][0]) for place in places])
    files, others = files_in(Path(settings.calib), SUFFIXES, deep=True)
    tell_left_out(settings.calib, others, SUFFIXES)
    if not files:
        raise ValueError(f"there are no images in the folder {settings.calib}")
    images = []
    for path in pick.sample(sorted(files), len(files)):
        try:
            images.append(data.read(path))
        except ValueError as error:
            if data.strict:
                raise
            warnings.warn(f"{error}; left out", stacklevel=2)
        if len(images) == settings.calib_samples:
            break
    if not images:
        raise ValueError(f"no image in {settings.calib} can be read")
    return torch.stack(images)


def _loader(samples: TestSet, data: ImageData, limit: int) -> DataLoader:
    step = max(1, len(samples) // limit) if limit else 1
    chosen = Subset(samples, range(0, len(samples), step)[: limit or None])
    return DataLoader(chosen, data.batch_size, num_workers=data.workers, collate_fn=collate)


@dataclass
class AnyTime:
    """What a converted network answers at the steps 1 to T and has done by then.

    Attributes:
        answers: of each step, against the labels.
        agreement: the same against the classes that the network itself gives.
        network: the network's own answers.
        tally: what was emitted, added and multiplied in each step.
        dense: multiplications of the network itself, per sample.
        batches: how many were done, for resuming.
        islands: functions that it evaluates in real numbers, with how often they occur.
        fitted: functions that it approximates by rectified units, with how often they occur.
    """

    answers: Accuracy = field(default_factory=Accuracy)
    agreement: Accuracy = field(default_factory=Accuracy)
    network: Accuracy = field(default_factory=Accuracy)
    tally: Tally = field(default_factory=Tally)
    dense: float = 0.0
    batches: int = 0
    islands: dict[str, int] = field(default_factory=dict)
    fitted: dict[str, int] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """How many were tested."""
        return self.tally.samples

    def rows(self, constants: Constants | None = None) -> list[dict]:
        """For each time step what a sample's answer is worth, and what it has cost until then. The words are those of docs/glossary.md.

        Returns:
            Dicts of time_steps; accuracy and agreement in [0, 1] (accuracy None without labels); firing_rate and thresholds, those that
            a neuron emitted per step; synops, macs, additions and functions so far; energy_mj of those, as the preset `exact` counts it.
        """
        constants = constants or Constants()
        accuracy, agreement = self.answers.per_step, self.agreement.per_step
        rates, thresholds = self.tally.so_far("emitted", "places"), self.tally.so_far("thresholds", "places")
        sums = {name: list(itertools.accumulate(self.tally.per_step(name))) for name in CHARGES}
        rows = []
        for t in range(self.tally.time_steps):
            done = {name: numbers[t] for name, numbers in sums.items()}
            rows.append(
                {
                    "time_steps": t + 1,
                    "accuracy": accuracy and accuracy[t],
                    "agreement": agreement[t],
                    "firing_rate": rates[t],
                    "thresholds": thresholds[t],
                    **done,
                    "energy_mj": constants.energy(done["macs"] + done["functions"], done["synops"] + done["additions"]),
                }
            )
        return rows

    def of_network(self, constants: Constants | None = None) -> dict:
        """The network that was converted: accuracy, multiplications and energy in mJ of a sample."""
        constants = constants or Constants()
        return {"accuracy": self.network.accuracy, "macs": self.dense, "energy_mj": constants.energy(self.dense, 0)}

    def csv(self, constants: Constants | None = None) -> str:
        """`rows` as a table of comma-separated values."""
        return as_csv(self.rows(constants))

    def as_text(self, constants: Constants | None = None) -> str:
        """For the terminal: the steps 1, 2, 4, ... and the last."""
        rows, network = self.rows(constants), self.of_network(constants)
        shown = sorted({2**i for i in range(len(rows).bit_length())} - {2 ** len(rows).bit_length()} | {len(rows)})
        names = ("accuracy", "agreement", "firing rate", "thresholds", "SynOps", "MACs", "energy")
        lines = [f"{'T':>7}" + "".join(f"{name:>{width}}" for name, width in zip(names, (11, 11, 13, 12, 12, 12, 14), strict=True))]
        for row in (rows[t - 1] for t in shown if t <= len(rows)):
            accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.2%}"
            lines.append(
                f"{row['time_steps']:>7}{accuracy:>11}{row['agreement']:>11.2%}{row['firing_rate']:>13.4f}{row['thresholds']:>12.3f}"
                f"{row['synops'] / 1e6:>10,.1f} M{(row['macs'] + row['functions']) / 1e6:>10,.1f} M{row['energy_mj']:>11.4g} mJ"
            )
        accuracy = "" if network["accuracy"] is None else f"{network['accuracy']:.2%}"
        lines.append(f"{'network':>7}{accuracy:>11}{'':>48}{network['macs'] / 1e6:>10,.1f} M{network['energy_mj']:>11.4g} mJ")
        lines.append(
            "per sample until T; firing rate: share of neurons x steps that emit something; thresholds: how many they emit on average; "
            "SynOps: additions that these cause; MACs: multiplications, functions among them; energy: also of other additions (preset exact)"
        )
        for functions, words in ((self.islands, "in real numbers: "), (self.fitted, "by rectified units, which read means and multiply: ")):
            if functions:
                lines.append(words + ", ".join(f"{name} ({count})" for name, count in functions.items()))
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """For JSON; `from_dict` makes it again."""
        return {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, content: dict) -> "AnyTime":
        """What `to_dict` has written.

        Raises:
            ValueError: it was written by a version that counted otherwise.
        """
        if not isinstance(content.get("tally"), dict):
            raise ValueError("an earlier version has begun this test, and counted otherwise; choose another --run_dir")
        made = {"answers": Accuracy, "agreement": Accuracy, "network": Accuracy, "tally": Tally}
        return cls(**{name: made[name].from_dict(value) if name in made else value for name, value in content.items()})


@torch.no_grad()
def any_time(
    converted: Converted,
    network: nn.Module,
    data: Iterable[tuple[Tensor, Tensor]],
    time_steps: int | None = None,
    so_far: AnyTime | None = None,
    done: Callable[[AnyTime], None] | None = None,
) -> AnyTime:
    """Accuracy, agreement with the network itself, firing rates and operations at every time step, from one run in the form "spikes".

    Args:
        converted: made from `network`.
        network: in eval mode, answering with logits [B, classes].
        data: batches (x, labels); a negative label is not counted for accuracy.
        time_steps: T, if not that of the conversion.
        so_far: an earlier result: as many batches are skipped as it has seen.
        done: called with the result after each batch.
    """
    T = time_steps or converted.time_steps
    result = so_far or AnyTime()
    if result.batches and result.answers.time_steps != T:
        raise ValueError(f"the earlier result has {result.answers.time_steps} time steps and this run {T}; begin anew")
    for number, (x, labels) in enumerate(data):
        if number < result.batches:
            continue
        if not result.dense:
            with FlopCounterMode(display=False) as counter:
                network(x[:1])
            result.dense = counter.get_total_flops() / 2
        wanted = logits_of(network(x))
        with following(converted) as recorder, recorder.recording(x):
            state = converted.start("spikes", T)
            answers = torch.stack([logits_of(logits) for logits in converted.steps(x, time_steps=T, state=state)])
        result.answers.update(answers, labels)
        result.agreement.update(answers, wanted.argmax(1))
        result.network.update(wanted, labels)
        result.tally += recorder.tally(recorder.integers)
        result.islands, result.fitted = (dict(sorted(Counter(places.values()).items())) for places in (state.islands, state.fitted))
        result.batches += 1
        if done:
            done(result)
    if not result.samples:
        raise ValueError("there are no samples to test on")
    return result
