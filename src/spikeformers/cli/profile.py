"""`spikeformers profile` and `spikeformers compare`."""

import os
from pathlib import Path

from ._data import EVENT_DRIVEN, shipped_names
from ._parser import Call
from ._profiles import must_be_a_checkpoint, profiles
from ._verb import FILE, FOLDER, Argument, FilesOr, Verb, data_section
from .train import models


def profile(call: Call):
    """Count a checkpoint's operations and energy on test samples, audit it, and write a report page."""
    (name,) = call.values("checkpoint")
    if "rates" not in call:
        must_be_a_checkpoint(name)
    folder = _report_folder(call)
    result, *others = profiles(call, name)
    if others:
        raise ValueError("profile takes one --time_steps; spikeformers compare takes several")
    print(result)
    if folder:
        result.write(folder)
        beside = "profile.json, layers.csv and early_exit.csv" if result.early_exit else "profile.json and layers.csv"
        print(f"wrote {Path(folder) / 'report.html'}, and {beside} beside it")


def compare(call: Call):
    """Profile several checkpoints, or one at several --time_steps, and write a page with them side by side."""
    names = call.values("checkpoint")
    for name in names:
        if "rates" not in call:
            must_be_a_checkpoint(name)
    folder = _report_folder(call)

    from ..profiling import compare as write, read_profile

    reports, maps = [], []
    for name in names:
        saved = Path(name) / "profile.json" if Path(name).is_dir() else Path(name)
        if saved.suffix == ".json" and saved.is_file():
            reports.append(read_profile(saved))
            maps.append([])
            print(f"{name}: {reports[-1]['totals']['energy_mj']:.4g} mJ per sample, as it was saved")
            continue
        for result in profiles(call, name):
            print(result, flush=True)
            reports.append(result.to_dict())
            maps.append(result.maps)
    if len(reports) < 2:
        raise ValueError("there is only one profile; give several checkpoints, or several --time_steps such as [1,2,4]")
    if folder:
        write(reports, folder, maps)
        print(f"wrote {Path(folder) / 'report.html'}, and comparison.csv and profiles.json beside it")
    else:
        print("add --report FOLDER for a page with all of them side by side")


def _report_folder(call):
    """What --report says, if files can be written there."""
    if "report" not in call:
        return None
    folder = Path(call.values("report")[-1])
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"--report {folder} cannot be written: {existing} is no folder that takes files")
    return folder


def checkpoints_or_models():
    """What completion offers: models are for estimates."""
    return FilesOr((*shipped_names(), *models()))


FIRST = "give the checkpoint first: spikeformers {} CKPT, then options such as --report FOLDER"
OPTIONS = (
    Argument("--preset", "exact, spikingformer, meta_spikeformer or honest: how energy is counted", default="exact",
             values=("exact", "spikingformer", "meta_spikeformer", "honest")),
    Argument("--switches", "of the preset, such as repconv=trained,strict=True (docs/energy.md)", default=""),
    Argument("--samples", "how many test samples, evenly spread; 0 for all (default: 1000)", type=int, default=1000),
    Argument("--time_steps", "T, if not that of the checkpoint; compare takes several", type=int | list[int] | None),
    Argument("--rates", "estimate from these rates: a number, JSON {module: rate} or a profile.json", type=str | None, values=FILE),
    Argument("--backbone", "of an estimate for mask_rcnn, faster_rcnn or semantic_fpn by name", type=str | None, values=models),
    Argument("--input_shape", "of an estimate, if not the model's own, such as [3,224,224]", type=list[int] | None),
    Argument("--mac", "pJ of a multiplication with addition, if not as the preset says", type=float | None),
    Argument("--ac", "pJ of an addition, if not as the preset says", type=float | None),
    Argument("--neuron", "pJ of one neuron's update at one time step, 0 by default", type=float | None),
    Argument("--report", "folder for report.html and the numbers behind it", type=str | None, values=FOLDER),
)  # fmt: skip

PROFILE = Verb(
    "profile",
    profile,
    arguments=(
        Argument(
            "checkpoint",
            "best.ckpt, last.ckpt or a .safetensors file; with --rates a model's name",
            values=checkpoints_or_models,
        ),
        *OPTIONS,
        Argument(
            "--early_exit",
            "what answers of early classifiers save: true, or confidences at which samples leave, such as [0.5,0.9]",
            type=bool | list[float],
            default=False,
        ),
        Argument(
            "--event_driven",
            f"also measure the time {EVENT_DRIVEN}",
            type=str | None,
            values=("float32", "bfloat16", "int8"),
        ),
    ),
    sections=(data_section(in_checkpoint=True),),
    first=FIRST.format("profile"),
    too_many="profile takes one checkpoint, not {count}; spikeformers compare takes several",
    needs=("train", "jsonargparse"),
)
COMPARE = Verb(
    "compare",
    compare,
    arguments=(
        Argument(
            "checkpoint",
            "best.ckpt, last.ckpt or a .safetensors file, or folders that `profile --report` wrote",
            nargs="+",
            values=checkpoints_or_models,
        ),
        *OPTIONS,
    ),
    sections=(data_section(in_checkpoint=True),),
    first=FIRST.format("compare"),
    refused={"--early_exit": "compare has no --early_exit; give it to spikeformers profile, once for each checkpoint"},
    needs=("train", "jsonargparse"),
)
