"""Models from disk, and files that are damaged or mean harm."""

import io
import json
import os
import random
import resource
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.utils.prune

import spikeformers
from spikeformers.models import import_checkpoint, load_published, save_model

TINY = dict(embed_dim=16, depth=1, num_heads=2, num_classes=10)


def tiny(**given):
    torch.manual_seed(0)
    return spikeformers.create_model("spikingformer_cifar_2_256", **{**TINY, **given})


DIGITS = {
    "name": "digits",
    "img_size": 16,
    "channels": 1,
    "mean": [0.3],
    "std": [0.4],
    "crop_pct": 0.9,
    "interpolation": "bilinear",
}


def theirs(**given):
    return tiny(**given).state_dict()


HOSTILE = [
    ({"embed_dim": 10**9}, "no model can be made|in the file"),
    ({"embed_dim": 8 * 10**30}, "embed_dim must be at most"),
    ({"depth": 10**6}, "it says 1,000,000 blocks"),
    ({"time_steps": 10**9}, "time_steps must be at most 10,000"),
    ({"num_heads": "2"}, "num_heads must be a whole number, not '2'"),
    ({"pools": {"a": 1}}, "pools must be a list"),
    ({"tau": float("nan")}, "tau must be a finite number"),
    ({"schedule": [10**4, 1]}, "schedule"),
    ({"colour": 1}, "no option 'colour'"),
    ({"pretrained": True}, "has the entries pretrained"),
    ({"checkpoint": "/etc/passwd"}, "has the entries checkpoint"),
    ({"architecture": ["mask_rcnn"]}, "names no architecture"),
    ({"architecture": "hf-hub:someone/model"}, "unknown model"),
    ({"architecture": "mask_rcnn", "backbone": "hf-hub:someone/model"}, "m.json"),
    ({"architecture": "semantic_fpn", "backbone": "spiking_vgg9", "backbone_kwargs": {"checkpoint": "x"}}, "m.json"),
    ({"pretrained_cfg": {"mean": "none"}}, "mean must be a list of numbers"),
    ({"pretrained_cfg": {"input_size": [3, 10**9, 10**9]}}, "input_size"),
    ({"pretrained_cfg": [1]}, "pretrained_cfg must be a dictionary"),
]


@pytest.mark.parametrize(("change", "words"), HOSTILE, ids=str)
def test_hostile_configurations_are_named(change, words, tmp_path):
    save_model(tiny(), tmp_path / "m.safetensors")
    config = json.loads((tmp_path / "m.json").read_text())
    (tmp_path / "m.json").write_text(json.dumps({**config, **change}))
    start = time.monotonic()
    with pytest.raises(ValueError, match=words) as error:
        spikeformers.create_model(checkpoint=tmp_path / "m.safetensors")
    assert str(tmp_path / "m") in str(error.value)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "text", ["[" * 10**5, '{"a":' * 10**5, "1" * 10**5, "null", "\xff\xfe", '{"architecture": "\\ud800"}'], ids=range(6)
)
def test_hostile_json_is_named(text, tmp_path):
    save_model(tiny(), tmp_path / "m.safetensors")
    (tmp_path / "m.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"m\.(json|safetensors)"):
        spikeformers.create_model(checkpoint=tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "metadata",
    [
        "[1]",
        "{",
        '{"data": 3}',
        '{"classes": 5}',
        '{"data": {"img_size": "x"}}',
        '{"data": {"img_size": 9, "channels": 1, "mean": [1]}}',
        "[" * 10**5,
    ],
    ids=range(7),
)
def test_hostile_metadata_is_named(metadata, tmp_path):
    save_model(tiny(), tmp_path / "m.safetensors", {"spikeformers": metadata})
    with pytest.raises(ValueError, match="m.safetensors"):
        spikeformers.create_model(checkpoint=tmp_path / "m.safetensors")


def bytes_changed(content, draw):
    content = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8])):
        place = draw.randrange(min(len(content), draw.choice([64, 4096, len(content)])))
        kind = draw.randrange(4)
        if kind == 0:
            content[place] = draw.randrange(256)
        elif kind == 1:
            content[place] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del content[place : place + draw.choice([1, 8, 100])]
        else:
            content[place:place] = bytes(draw.randrange(256) for _ in range(draw.choice([1, 8])))
        if not content:
            break
    return bytes(content[: draw.randrange(len(content) + 1)] if draw.random() < 0.1 else content)


VALUES = [
    None,
    True,
    0,
    -1,
    2.5,
    10**9,
    10**40,
    1e308,
    float("nan"),
    "x",
    "",
    [],
    [1, "a"],
    {},
    {"a": [1]},
    [[[]]],
    "../../x",
    "hf-hub:a/b",
    [0] * 1000,
]


def json_changed(content, draw):
    content = json.loads(json.dumps(content))
    for _ in range(draw.choice([1, 1, 2, 3])):
        inside, key = content, None
        while isinstance(inside, (dict, list)) and len(inside):
            holder = inside
            key = draw.choice(list(inside)) if isinstance(inside, dict) else draw.randrange(len(inside))
            inside = inside[key]
            if draw.random() < 0.5:
                break
        if key is None:
            continue
        change = draw.randrange(4)
        if change == 0 and isinstance(holder, dict):
            del holder[key]
        elif change == 1 and isinstance(holder, dict):
            holder[str(draw.choice(["pretrained", "checkpoint", "schedule", "temporal", "backbone", "zzz"]))] = (
                draw.choice(VALUES)
            )
        else:
            holder[key] = draw.choice(VALUES)
    return content


def header_changed(content, draw):
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json_changed(json.loads(content[8 : 8 + length]), draw)).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def pickle_changed(content, draw):
    """The pickle inside an archive of torch.save, changed; its check sums fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, bytes_changed(data, draw) if info.filename.endswith("data.pkl") else data)
    return out.getvalue()


@pytest.mark.slow
def test_mutated_checkpoints_are_read_or_named(tmp_path, monkeypatch):
    """Nothing but a ValueError with the file's name, in less than 10 seconds and 1 GiB, and no file but those that are asked for."""
    draw, outcomes = random.Random(0), Counter()
    folder = tmp_path / "in"
    folder.mkdir()
    monkeypatch.chdir(folder)
    detector = spikeformers.create_model(
        "faster_rcnn", backbone="spikingformer_cifar_2_256", backbone_kwargs=TINY, num_classes=3, width=4
    )
    models = {"m": tiny(), "d": detector}
    known = {
        "m": {
            "data": {**DIGITS, "channels": 3, "mean": [0.1] * 3, "std": [1] * 3},
            "classes": [str(i) for i in range(10)],
        },
        "d": {"data": None, "classes": ["a", "b"]},
    }
    files = {}
    for name, model in models.items():
        save_model(model, folder / f"{name}.safetensors", {"spikeformers": json.dumps(known[name])})
        files[name] = (folder / f"{name}.safetensors").read_bytes(), json.loads((folder / f"{name}.json").read_text())
    state = {"model": theirs(), "epoch": 3, "metric": np.float64(3)}
    archive, old = io.BytesIO(), io.BytesIO()
    torch.save(state, archive)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = tiny()
    for i in range(700):
        name = "d" if i % 10 == 9 else "m"
        weights, config = files[name]
        kind = ["header", "bytes", "json", "json text", "metadata", "pickle", "archive", "old pickle"][i % 8]
        text = json.dumps(config)
        if kind == "header":
            weights = header_changed(weights, draw)
        elif kind == "bytes":
            weights = bytes_changed(weights, draw)
        elif kind == "json":
            text = json.dumps(json_changed(config, draw))
        elif kind == "json text":
            text = bytes_changed(text.encode(), draw).decode("latin-1")
        elif kind == "metadata":
            length = int.from_bytes(weights[:8], "little")
            header = json.loads(weights[8 : 8 + length])
            header["__metadata__"]["spikeformers"] = json.dumps(json_changed(known[name], draw))
            header = json.dumps(header).encode()
            weights = len(header).to_bytes(8, "little") + header + weights[8 + length :]
        path = folder / f"{name}.safetensors"
        if kind in ("pickle", "archive", "old pickle"):
            path = folder / "theirs.pth"
            content = {"pickle": archive, "archive": archive, "old pickle": old}[kind].getvalue()
            path.write_bytes(pickle_changed(content, draw) if kind == "pickle" else bytes_changed(content, draw))
            readers = {
                "load": lambda path=path: load_published(model, path),
                "import": lambda path=path: import_checkpoint(
                    path, tmp_path / "out" / "o.safetensors", "spikingformer_cifar_2_256", **TINY
                ),
            }
        else:
            path.write_bytes(weights)
            path.with_suffix(".json").write_bytes(text.encode("latin-1", "replace"))
            readers = {"create": lambda path=path: spikeformers.create_model(checkpoint=path)}
            if name == "m" and kind in ("header", "bytes"):
                readers["load"] = lambda path=path: load_published(model, path)
        for reader, read in readers.items():
            start = time.monotonic()
            try:
                read()
                outcomes[kind, reader, "read"] += 1
            except ValueError as error:
                outcomes[kind, reader, "named"] += 1
                assert str(path) in str(error) or str(path.with_suffix(".json")) in str(error), (
                    i,
                    kind,
                    reader,
                    str(error),
                )
                assert len(str(error)) < 5000 and "\x1b" not in str(error) and "weights_only" not in str(error), str(
                    error
                )
            assert time.monotonic() - start < 10, (i, kind, reader)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    print(*sorted(outcomes.items()), f"{grown / 1024:.0f} MiB", sep="\n")
    assert grown < 2**20
    assert {p.name for p in folder.iterdir()} == {"m.safetensors", "m.json", "d.safetensors", "d.json", "theirs.pth"}
    assert {p.name for p in tmp_path.iterdir()} <= {"in", "out"} and not os.path.lexists(Path("x"))
    assert min(outcomes[kind, "create", "named"] for kind in ("header", "json", "json text", "metadata")) > 10
