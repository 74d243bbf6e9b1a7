"""Mutated recipes, command lines and profiles: whatever people can put right ends in one line, and nothing in a traceback.

The seeds are fixed; a failure prints the input. Each test has a short form, and a long one that is marked slow.
"""

import contextlib
import copy
import io
import json
import random
import shlex

import pytest
import yaml

from spikeformers import cli, create_model, save_model
from spikeformers.profiling import estimate

RECIPE = {
    "seed": 1,
    "model": {
        "name": "meta_spikeformer_cifar",
        "kwargs": {
            "dims": [8, 8, 8, 8],
            "depths": [0, 0, 0, 1, 0],
            "strides": [2, 2, 2, 1, 1],
            "time_steps": 1,
            "num_heads": 2,
        },
    },
    "data": {
        **{"name": "digits", "channels": 1, "img_size": 8, "mean": [0.3], "std": [0.38], "interpolation": "bilinear"},
        **{
            "scale": [0.8, 1.0],
            "ratio": [0.9, 1.1],
            "hflip": 0.0,
            "batch_size": 512,
            "crop_padding": 0,
            "erase": 0.0,
            "workers": 0,
        },
    },
    "training": {
        **{
            "epochs": 1,
            "lr": 3.0e-3,
            "warmup_epochs": 0,
            "label_smoothing": 0.1,
            "clip_grad": 1.0,
            "optimizer": "adamw",
            "optimizer_kwargs": {},
        },
        **{
            "mixup": 0.0,
            "cutmix": 0.0,
            "ema": 0.0,
            "weight_decay": 0.05,
            "schedule": "cosine",
            "decay_at": [],
            "layer_decay": 1.0,
        },
    },
    "trainer": {"accelerator": "cpu", "threads": 1, "save_minutes": 0},
}
VALUES = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        10**9,
        10**30,
        -(10**30),
        0.5,
        -0.5,
        1e-30,
        1e300,
        float("nan"),
        float("inf"),
        -float("inf"),
    ),
    *(
        "",
        "x",
        "1e-3",
        "digits",
        "../x",
        "\x00",
        "ü" * 300,
        [],
        [1],
        [0.5, 0.5],
        ["x"],
        [[]],
        [None],
        {},
        {"x": 1},
        {1: 2},
        {"name": "x"},
    ),
)


def places(content, path=()):
    """Paths to all values inside."""
    yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def mutated(content, draw, values=VALUES):
    """The content with one to three values replaced, deleted, renamed, doubled or nested."""
    content = copy.deepcopy(content)
    for _ in range(draw.choice((1, 1, 2, 3))):
        path = draw.choice([path for path in places(content) if path] or [()])
        if not path:
            return draw.choice(values)
        holder = content
        for key in path[:-1]:
            holder = holder[key]
        how, key = draw.random(), path[-1]
        if how < 0.7 or isinstance(holder, list):
            holder[key] = copy.deepcopy(draw.choice(values))
        elif how < 0.8:
            del holder[key]
        elif how < 0.9:
            holder[f"{key}x"] = holder.pop(key)
        else:
            holder[key] = [holder[key], holder[key]]
    return content


def outcome(argv):
    """Exit code and lines on stderr of a command, or the traceback's last line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(argv)
        except BaseException as error:  # noqa: BLE001 - whatever comes out is the finding
            code = f"{type(error).__name__}: {error}"
    return code, [line for line in err.getvalue().splitlines() if not line.startswith("spikeformers: warning: ")]


def must_answer(argv, counts, what):
    code, lines = outcome(argv)
    counts[code if code in (0, 2) else "other"] = counts.get(code if code in (0, 2) else "other", 0) + 1
    assert code in (0, 2), f"{code}\n{shlex.join(argv)}\n{what}"
    if code == 2:
        assert len(lines) == 1 and lines[0].startswith("spikeformers: "), f"{lines}\n{what}"


@pytest.fixture
def stopped_before_training(monkeypatch):
    """Everything up to the first file of a run, but no epoch."""

    def written(folder, recipe):
        raise ValueError("as far as this goes")

    monkeypatch.setattr("spikeformers.training.run._write_config", written)


@pytest.mark.parametrize("rounds", [40, pytest.param(1500, marks=pytest.mark.slow)])
def test_recipes(tmp_path, monkeypatch, stopped_before_training, rounds, one_thread):
    monkeypatch.chdir(tmp_path)
    draw, counts = random.Random(rounds), {}
    path = tmp_path / "r.yaml"
    for _ in range(rounds):
        text = yaml.safe_dump(mutated(RECIPE, draw), sort_keys=False, allow_unicode=True)
        if draw.random() < 0.15:  # and the text itself
            place = draw.randrange(len(text))
            text = (
                text[:place]
                + draw.choice(["[", "{", ":", "&a ", "*a", "!!python/object:os.system ", "\t", "- ", "'", "[" * 5000])
                + text[place:]
            )
        path.write_text(text, encoding="utf-8")
        must_answer(["train", "--config", str(path)], counts, text[:3000])
        assert {each.name for each in tmp_path.iterdir()} <= {"r.yaml", "runs"}
        assert not list(tmp_path.glob("runs/*/*/*"))
    print(counts)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, a profile and files that are neither."""
    folder = tmp_path_factory.mktemp("files")
    model = create_model("spikingformer_cifar_2_256", embed_dim=16, depth=1, num_heads=2, num_classes=10)
    save_model(model, folder / "m.safetensors")
    estimate(model, [3, 32, 32], 0.2).write(folder / "profile")
    (folder / "deep.json").write_text("[" * 200_000)
    (folder / "odd.json").write_text('{"layers": [1], "neurons": 3}')
    (folder / "empty").touch()
    (folder / "list.yaml").write_text("data: 5\nmodel: {name: spikingformer_cifar_2_256}\n")
    return folder


def commands(folder):
    ckpt, profile, name = (
        str(folder / "m.safetensors"),
        str(folder / "profile" / "profile.json"),
        "spikingformer_cifar_2_256",
    )
    return [
        [
            "profile",
            name,
            "--rates",
            "0.2",
            "--switches",
            "integers=mac",
            "--input_shape",
            "[3,32,32]",
            "--preset",
            "exact",
        ],
        ["profile", ckpt, "--rates", profile, "--mac", "4.6", "--ac", "0.9", "--time_steps", "1", "--title", "x"],
        ["compare", profile, profile, "--report", str(folder / "both")],
        ["compare", str(folder / "profile"), name, "--rates", "0.2"],
        ["import", ckpt, str(folder / "o.safetensors"), "--model", name, "--time_steps", "1"],
        ["predict", ckpt, str(folder / "x.png"), "--top", "3", "--threshold", "0.5"],
        ["eval", ckpt, "--data.name", "digits", "--data.channels", "1"],
        ["train", "--config", str(folder / "list.yaml"), "--training.epochs", "1", "--model.kwargs.time_steps", "1"],
        ["convert", "timm:resnet18", "--calib", str(folder), "--levels", "4", "--data.img_size", "32"],
        ["list", "meta*"],
        ["shard", str(folder), str(folder / "shards"), "--images", "5"],
    ]


@pytest.mark.parametrize("rounds", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_command_lines(files, tmp_path, monkeypatch, stopped_before_training, rounds, one_thread):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    draw, counts = random.Random(rounds), {}
    words = [
        *(
            "",
            "-",
            "--",
            "x",
            "-1",
            "0",
            "1e9",
            "nan",
            "[",
            "a=[",
            "[-3,32,32]",
            "[1,2",
            "{}",
            "{x: [",
            "null",
            "true",
            "--x",
            "--data.name",
            "--report",
        ),
        *(
            "--checkpoint",
            "--model",
            "y",
            "--help=x",
            "\x00",
            "a" * 5000,
            "/dev/null",
            "/proc/self/mem",
            str(files),
            "1" * 5000,
        ),
        *(
            str(files / name)
            for name in ("deep.json", "odd.json", "empty", "list.yaml", "m.json", "profile/profile.json")
        ),
    ]
    for _ in range(rounds):
        argv = list(draw.choice(commands(files)))
        for _ in range(draw.choice((1, 1, 2, 3))):
            how, place = draw.random(), draw.randrange(1, len(argv) + 1)
            if how < 0.6:
                argv[min(place, len(argv) - 1)] = draw.choice(words)
            elif how < 0.8:
                argv.insert(place, draw.choice(words))
            else:
                argv[place:] = argv[place + 1 :]
        if len(argv) > 1:
            must_answer(argv, counts, "")
    print(counts)


@pytest.mark.parametrize("rounds", [60, pytest.param(1200, marks=pytest.mark.slow)])
def test_profiles(files, tmp_path, rounds):
    draw, counts = random.Random(rounds), {}
    sound = json.loads((files / "profile" / "profile.json").read_text())
    sound["layers"], sound["neurons"], sound["architecture"] = (
        sound["layers"][:4],
        sound["neurons"][:3],
        sound["architecture"][:4],
    )
    path = tmp_path / "p.json"
    for _ in range(rounds):
        text = json.dumps(mutated(sound, draw))
        if draw.random() < 0.1:
            text = text[: draw.randrange(len(text))]
        path.write_text(text)
        must_answer(
            ["compare", str(path), str(files / "profile"), "--report", str(tmp_path / "both")], counts, text[:2000]
        )
    print(counts)


@pytest.mark.parametrize("rounds", [40, pytest.param(700, marks=pytest.mark.slow)])
def test_configurations_of_checkpoints(files, tmp_path, rounds, one_thread):
    draw, counts = random.Random(rounds), {}
    sound = json.loads((files / "m.json").read_text())
    path = tmp_path / "m.json"
    (tmp_path / "m.safetensors").write_bytes((files / "m.safetensors").read_bytes())
    for _ in range(rounds):
        text = json.dumps(mutated(sound, draw))
        path.write_text(text[: draw.randrange(len(text))] if draw.random() < 0.1 else text)
        must_answer(
            ["profile", str(tmp_path / "m.safetensors"), "--rates", "0.2", "--input_shape", "[3,32,32]"], counts, text
        )
    print(counts)
