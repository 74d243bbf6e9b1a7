"""Converting a pretrained network from the command line: calibration, saving, the test at every time step."""

import json
import random
import re
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from .._files import owned, read_text, write_atomically, write_json
from .._options import check_options
from .._progress import progress_bar
from .._ranges import Range
from .._signals import listening
from ..data import ImageData, TestSet
from ..data.images import SUFFIXES
from ..data.listing import files_in, tell_left_out
from ..data.loading import collate
from ..measure import Constants
from ..transforms.sta import classes_of, convert, logits_of, readable, takes_texts, with_texts
from ..transforms.sta.convert import check_options as check_conversion
from ..transforms.sta.zero_shot import PROMPTS
from .any_time import AnyTime, any_time
from .checkpoint import Trained, load_trained, save_trained
from .results import best_device

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


def must_be_possible(settings: Conversion, named: bool, run_dir: str | Path | None, resume: bool) -> None:
    """What can be said before there is a network, which may have to be fetched.

    Args:
        settings: of the conversion.
        named: whether a data set is named.
        run_dir: where results go, or None for the default.
        resume: whether an earlier conversion there goes on.

    Raises:
        ValueError: as for `run`.
    """
    if settings.calib is None and not named:
        raise ValueError(
            "there is nothing to choose thresholds by: give --calib FOLDER, or a data set by --data.name and --data.root"
        )
    for option, place in (("--calib", settings.calib), ("--eval", settings.eval)):
        if place is not None and not Path(place).is_dir():
            raise ValueError(f"{option} {place} is no folder; give one that holds images")
    if settings.calib is not None and not any(
        path.suffix.lower() in SUFFIXES for path in Path(settings.calib).rglob("*")
    ):
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
        content = json.loads(read_text(table))
        settings, sums = content["settings"], content["any_time"]
        if not isinstance(settings, dict):
            raise TypeError("settings that are none")
        return settings, AnyTime.from_dict(sums)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RuntimeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ValueError(
            f"{table} is damaged ({type(error).__name__}: {error}); delete it, and the test begins anew"
        ) from None


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
            raise ValueError(
                f"{folder} holds a conversion with other settings ({', '.join(changed)}); choose another --run_dir"
            )
    samples = _test_set(settings, data) if named or settings.eval else None
    if takes_texts(model):
        model = with_texts(model, settings.classes or readable(_classes(samples)), settings.prompts)
    elif settings.classes:
        raise ValueError(
            f"--classes names the classes of networks that take texts, such as CLIP, which {settings.model} does not"
        )
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
        converted = convert(
            model, batches, *how, levels=settings.levels, potential=settings.potential, spiking=settings.spiking
        )
        trained = Trained(converted, data, samples.classes if samples else settings.classes or None)
        save_trained(trained, path)
        write_json(table, {"settings": wanted, "any_time": AnyTime().to_dict()})
    if samples is None:
        return None, path
    loader = _loader(samples, data, settings.samples)
    with progress_bar("testing", len(loader), initial=so_far.batches if so_far else 0) as bar:

        def keep(result):
            write_json(table, {"settings": wanted, "any_time": result.to_dict()})
            bar.update()

        result = any_time(trained.model.to(device), model, loader, so_far=so_far, done=keep)
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
        raise ValueError(
            "zero-shot classification needs the classes' names: give --classes '[cat, dog]', or --eval FOLDER"
        )
    return samples.classes


def _try(model: nn.Module, x: Tensor) -> None:
    try:
        with torch.no_grad():
            logits_of(model(x))
    except (RuntimeError, AssertionError) as error:
        size = " x ".join(map(str, x.shape[1:]))
        raise ValueError(
            f"the network does not take images of {size} ({error}); see --data.img_size and --data.channels"
        ) from None


def _calibration(settings: Conversion, data: ImageData) -> Tensor:
    """Images [N, C, H, W] to choose thresholds by, prepared as for testing."""
    if settings.calib is None:
        return torch.cat([x for x, _ in data.calibration_batches(settings.calib_samples)])
    files, others = files_in(Path(settings.calib), SUFFIXES, deep=True)
    tell_left_out(settings.calib, others, SUFFIXES)
    if not files:
        raise ValueError(f"there are no images in the folder {settings.calib}")
    images = []
    for path in random.Random(0).sample(sorted(files), len(files)):
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
