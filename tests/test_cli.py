"""The command line: what each verb prints, and one clear line for what the user can put right."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import lightning  # noqa: F401 - commands import it, and what it warns of must not be in their output
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torchvision.utils import save_image

from spikeformers import create_model, list_models
from spikeformers._install import command_for
from spikeformers.cli import main
from spikeformers.data import ImageData
from spikeformers.models import shipped as shipped_module

RECIPE = str(Path(__file__).parents[1] / "src/spikeformers/recipes/digits.yaml")
QUICK = [
    *("--training.epochs", "1", "--training.warmup_epochs", "0", "--data.batch_size", "256"),
    *("--model.kwargs.dims", "[8,8,8,8]", "--model.kwargs.depths", "[0,0,0,1,0]", "--trainer.accelerator", "cpu"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run folder of one epoch on the digits with a model that does not learn much."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    assert main(["train", "--config", RECIPE, *QUICK, "--run_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def says(capsys):
    """Runs a command that must fail with one line on stderr; returns that line."""

    def run(*argv):
        assert main(list(argv)) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("spikeformers: ") and err.count("\n") == 1
        return err

    return run


def test_train_ends_with_a_summary(trained, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for number in "12":
        assert main(["train", "--config", RECIPE, *QUICK]) == 0
        out, err = capsys.readouterr()
        summary = json.loads((tmp_path / "runs" / "digits" / number / "summary.json").read_text())
        assert "1,437 training and 360 test samples 1x16x16, 10 classes" in out
        assert f"accuracy     {summary['last_accuracy']:.2%} of 360 test samples" in out
        assert f"parameters   {summary['parameters']:,}" in out
        for name, rate in summary["firing_rates"].items():
            assert any(line.split() == [name, f"{rate:.4f}"] for line in out.splitlines())
        assert err == ""
    assert summary["accuracy"] == json.loads((trained / "summary.json").read_text())["accuracy"]


def test_eval_agrees_with_the_summary(trained, capsys):
    summary = json.loads((trained / "summary.json").read_text())
    for name in ("best.ckpt", "last.ckpt", "best.safetensors"):
        assert main(["eval", str(trained / name), "--data.batch_size", "100"]) == 0
        out = capsys.readouterr().out
        assert f"accuracy     {summary['accuracy']:.2%} of 360 test samples (digits)" in out
        assert f"loss         {summary['loss']:.4f}" in out
        assert f"firing rate  {summary['firing_rate']:.4f}" in out


def test_profile_measures_what_eval_measures(trained, capsys, tmp_path):
    summary = json.loads((trained / "summary.json").read_text())
    checkpoint, report = str(trained / "best.ckpt"), tmp_path / "report"
    assert main(["profile", checkpoint, "--samples", "0", "--preset", "meta_spikeformer", "--report", str(report)]) == 0
    out, err = capsys.readouterr()
    written = json.loads((report / "profile.json").read_text())
    assert err == "" and f"wrote {report / 'report.html'}" in out and "360 samples" in out
    assert f"accuracy     {summary['accuracy']:.2%}" in out and written["accuracy"] == summary["accuracy"]
    rates = {neuron["name"]: round(neuron["rate"], 6) for neuron in written["neurons"]}
    assert rates == pytest.approx(summary["firing_rates"], abs=1e-6)
    assert written["data"] == "digits" and written["checkpoint"] == checkpoint
    assert written["audit_merged"]["additions_only"] and "<title>" in (report / "report.html").read_text()
    assert main(["profile", checkpoint, "--preset", "meta_spikeformer", "--rates", str(report / "profile.json")]) == 0
    assert f"{written['totals']['energy_mj']:.4g} mJ" in capsys.readouterr().out
    assert main(["profile", checkpoint, "--rates", str(report / "profile.json")]) == 0


def test_compare_time_steps_and_reports(trained, capsys, tmp_path):
    checkpoint, report = str(trained / "best.ckpt"), str(tmp_path / "report")
    few = ["--samples", "20"]
    assert main(["profile", checkpoint, "--report", report, *few]) == 0
    assert main(["compare", checkpoint, report, "--time_steps", "[1,2]", "--report", str(tmp_path / "both"), *few]) == 0
    assert "comparison.csv" in capsys.readouterr().out
    profiles = json.loads((tmp_path / "both" / "profiles.json").read_text())["profiles"]
    assert [found["time_steps"] for found in profiles] == [1, 2, profiles[2]["time_steps"]]
    assert [found["samples"] for found in profiles] == [20, 20, 20]
    assert profiles[0]["totals"]["energy_mj"] < profiles[1]["totals"]["energy_mj"]
    assert main(["compare", report]) == 2
    assert "there is only one profile" in capsys.readouterr().err
    assert "compared" in (tmp_path / "both" / "report.html").read_text()


def test_event_driven_inference(trained, capsys, tmp_path):
    checkpoint = str(trained / "best.ckpt")
    assert main(["eval", checkpoint]) == 0
    plain = capsys.readouterr().out
    assert main(["eval", checkpoint, "--event_driven", "float32"]) == 0
    driven, err = capsys.readouterr()
    assert err == "" and driven.splitlines()[0] == plain.splitlines()[0]
    report = tmp_path / "report"
    assert main(["profile", checkpoint, "--samples", "40", "--event_driven", "int8", "--report", str(report)]) == 0
    out = capsys.readouterr().out
    assert "event-driven" in out and "int8 weights" in out
    run = json.loads((report / "profile.json").read_text())["event_driven"]
    assert run["milliseconds"] > 0 and run["batch"] > 0 and run["precision"] == "int8"
    assert run["layers"] and all(f"  {layer['name']} " in out and 0 <= layer["density"] <= 1 for layer in run["layers"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["eval", "--event_driven", "int4"], "precision must be one of float32, bfloat16, int8, not 'int4'"),
        (
            ["profile", "--event_driven", "int8", "--rates", "0.2"],
            "--event_driven measures time, and --rates estimates",
        ),
    ],
)
def test_mistakes_with_event_driven_inference(trained, says, options, message):
    verb, *rest = options
    assert message in says(verb, str(trained / "best.ckpt"), *rest)


@pytest.fixture(scope="module")
def answering_early(tmp_path_factory):
    """The run folder of one epoch with an early classifier behind every stage."""
    folder = tmp_path_factory.mktemp("early") / "run"
    assert (
        main(["train", "--config", RECIPE, *QUICK, "--training.early_classifiers", "true", "--run_dir", str(folder)])
        == 0
    )
    return folder


def test_profile_shows_what_early_exit_saves(answering_early, capsys, tmp_path):
    checkpoint, report = str(answering_early / "best.ckpt"), tmp_path / "report"
    assert main(["profile", checkpoint, "--samples", "50"]) == 0
    plain, _ = capsys.readouterr()
    options = ["--samples", "50", "--early_exit", "[0,0.9]", "--report", str(report)]
    assert main(["profile", checkpoint, *options]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith(plain) and "early_exit.csv" in out
    _, header, at_once, _, without, _ = out.removeprefix(plain).splitlines()
    written = json.loads((report / "profile.json").read_text())
    stages = list(written["early_exit"][0]["exits"])
    assert header.split() == ["confidence", "accuracy", "time", "steps", "energy", *stages]
    assert at_once.split()[0] == "0" and at_once.split()[-len(stages) :] == ["100.0%", *["0.0%"] * (len(stages) - 1)]
    assert without.split()[:4] == ["none", "leaves", "early", f"{written['accuracy']:.2%}"]
    assert f"{written['totals']['energy_mj']:.4g} mJ" in without  # the network that the rest of the profile is about
    rows = [line.split(",") for line in (report / "early_exit.csv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["confidence", "0.0", "0.9", ""] and rows[0][4:] == stages
    assert "Early exit" in (report / "report.html").read_text()
    assert main(["profile", checkpoint, "--samples", "5", "--early_exit", "true"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(plain.splitlines()) + 10


def test_shared_early_classifiers_are_loaded(capsys, tmp_path):
    run = tmp_path / "run"
    early = ["--training.early_classifiers", "shared", "--training.ema", "0.9"]
    assert main(["train", "--config", RECIPE, *QUICK, *early, "--run_dir", str(run)]) == 0
    assert main(["profile", str(run), "--samples", "5", "--early_exit", "[0.5]"]) == 0
    assert "none leaves early" in capsys.readouterr().out


def test_mistakes_with_early_exit(trained, answering_early, says):
    checkpoint = str(answering_early / "best.ckpt")
    for argv, message in [
        (
            ["profile", str(trained / "best.ckpt"), "--early_exit", "true"],
            "train them with --training.early_classifiers true",
        ),
        (["profile", str(answering_early / "best.safetensors"), "--early_exit", "true"], "give best.ckpt or last.ckpt"),
        (["profile", checkpoint, "--early_exit", "[90]"], "not a percentage"),
        (["profile", checkpoint, "--early_exit", "[]"], "at least one probability"),
        (["profile", checkpoint, "--early_exit", "true", "--rates", "0.2"], "leave one of them out"),
        (["compare", checkpoint, checkpoint, "--early_exit=true"], "give it to spikeformers profile"),
    ]:
        assert message in says(*argv), argv


def test_estimate_of_a_model(capsys):
    assert main(["profile", "spikingformer_8_512", "--rates", "0.2", "--preset", "spikingformer"]) == 0
    out, _ = capsys.readouterr()
    assert "estimated from rates that were given" in out and "33.46 G dense" in out
    assert main(["profile", "spikingformer_dvs_2_256", "--rates", "0.1", "--time_steps", "10"]) == 0
    assert "10 time steps" in capsys.readouterr().out


def test_mistakes_with_profiles(trained, says, tmp_path):
    checkpoint = str(trained / "best.ckpt")
    (tmp_path / "rates.json").write_text("[1]")
    for argv, message in [
        (["profile"], "give the checkpoint first"),
        (["profile", "--preset", "exact"], "give the checkpoint first"),
        (["profile", checkpoint, checkpoint], "spikeformers compare takes several"),
        (["profile", checkpoint, "--preset", "exakt"], "choose one of exact, spikingformer, meta_spikeformer"),
        (["profile", checkpoint, "--switches", "integers"], "repconv=trained"),
        (["profile", checkpoint, "--switches", "integers=all"], "'mac', 'levels'"),
        (["profile", checkpoint, "--samples", "-1"], "--samples"),
        (["profile", checkpoint, "--time_steps", "[1,2]"], "compare takes several"),
        (["profile", checkpoint, "--time_steps", "0"], "--time_steps at least 1"),
        (["profile", checkpoint, "--input_shape", "[1,16,16]"], "estimate with --rates"),
        (["profile", checkpoint, "--report", str(tmp_path / "rates.json")], "is no folder"),
        (["profile", checkpoint, "--mac", "-1"], "-1.0 pJ"),
        (["compare", checkpoint, "nope"], "no checkpoint nope"),
        (["profile", checkpoint, "--sampels", "1"], "--samples"),
        (["profile", "meta_spikeformer_15"], "spikeformers list"),
        (["profile", "meta_spikeformer_15m"], "--rates 0.2 for an estimate"),
        (["profile", "meta_spikeformer_15", "--rates", "0.2"], "did you mean meta_spikeformer_15m"),
        (["profile", "meta_spikeformer_15m", "--rates", str(tmp_path / "rates.json")], "firing rates"),
        (["profile", "meta_spikeformer_15m", "--rates", "20"], "divide percentages"),
        (["compare", str(tmp_path / "rates.json"), checkpoint], "spikeformers profile --report"),
    ]:
        assert message in says(*argv), argv


def test_predict_names_the_likeliest_classes(trained, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = load_digits().images
    for i in (0, 1):
        save_image(torch.from_numpy(digits[i] / 16)[None], f"{i}.png")  # saved as RGB
    assert main(["predict", str(trained / "best.safetensors"), "0.png", "1.png", "--top", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["0.png", "1.png"]
    for line in lines:
        names, shares = zip(*(item.split() for item in line.split(": ")[1].split(", ")), strict=True)
        shares = [float(share.rstrip("%")) for share in shares]
        assert sorted(names) == list("0123456789")
        assert sum(shares) == pytest.approx(100, abs=1) and shares == sorted(shares, reverse=True)


def test_eval_refuses_images_of_other_classes(trained, says, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "val" / name).mkdir(parents=True)
        save_image(torch.zeros(3, 8, 8), tmp_path / "val" / name / "1.png")
    error = says("eval", str(trained / "best.ckpt"), "--data.name", "folder", "--data.root", str(tmp_path))
    assert "knows the classes" in error and "'cat', 'dog'" in error


def test_list(capsys):
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split() == list_models() + ["faster_rcnn", "mask_rcnn", "semantic_fpn"]
    assert main(["list", "meta*"]) == 0
    assert capsys.readouterr().out.split() == list_models("meta*")


def test_list_of_what_ships(says, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_module, "FOLDER", tmp_path)
    shipped_module.shipped.cache_clear()
    try:
        assert "no weights ship with this installation" in says("list", "--pretrained")
        entry = {
            "data": "CIFAR-10",
            "accuracy": 0.9,
            "time_steps": 1,
            "parameters": 1234567,
            "firing_rate": 0.1,
            "milliseconds": None,
        }
        (tmp_path / "index.json").write_text(json.dumps({"spiking_resnet_edge.tag": entry}))
        shipped_module.shipped.cache_clear()
        assert main(["list", "--pretrained", "spiking*"]) == 0
        _, line, _ = capsys.readouterr().out.splitlines()
        assert line.split() == ["spiking_resnet_edge.tag", "CIFAR-10", "90.00%", "1", "1,234,567", "0.1000", "-"]
    finally:
        shipped_module.shipped.cache_clear()


def test_estimates_for_networks_around_a_backbone(capsys):
    options = ["--rates", "0.2", "--time_steps", "1", "--input_shape", "[3,64,64]"]
    assert main(["profile", "semantic_fpn", *options]) == 2
    assert "needs a backbone" in capsys.readouterr().err
    assert main(["profile", "semantic_fpn", "--backbone", "meta_spikeformer_cifar", *options]) == 0
    assert "semantic_fpn, T = 1:" in capsys.readouterr().out


def test_list_is_light():
    program = "import sys; from spikeformers.cli import main; main(['list']); assert 'lightning' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"torch {torch.__version__.partition('+')[0]}" in out
    lines = [line.split() for line in out.splitlines()]
    assert any(line[:2] == ["reference", "live"] for line in lines)
    assert ["train", "present"] in lines


def test_doctor_says_how_to_get_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr("spikeformers.cli.doctor._installed", lambda name: name != "lightning")
    assert main(["doctor"]) == 0
    assert command_for("train") in capsys.readouterr().out


def test_import_converts(tmp_path, capsys):
    model = create_model("meta_spikeformer_cifar", dims=(8, 8, 8, 8), depths=(0, 0, 0, 1, 0), num_classes=3)
    torch.save({"model": model.state_dict()}, tmp_path / "published.pth")
    out = tmp_path / "out.safetensors"
    options = ["--dims", "[8,8,8,8]", "--depths", "(0,0,0,1,0)", "--time_steps", "1"]
    assert (
        main(["import", str(tmp_path / "published.pth"), str(out), "--model", "meta_spikeformer_cifar", *options]) == 0
    )
    assert f"wrote {out} and {tmp_path / 'out.json'}" in capsys.readouterr().out
    read = create_model(checkpoint=out)
    assert read.time_steps == 1
    assert nn.utils.parameters_to_vector(read.parameters()).equal(nn.utils.parameters_to_vector(model.parameters()))


def test_train_without_its_extra(says, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lightning" else find(name))
    assert says("train", "--config", RECIPE).endswith(f"needs lightning, not installed: {command_for('train')}\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "unknown verb 'trian'; did you mean train?"),
        (["train"], "give a recipe, such as --config digits"),
        (["train", "--config", "none.yaml"], "none.yaml"),
        (["train", "--config", RECIPE, "--epochs", "3"], "unknown option --epochs; did you mean --training.epochs?"),
        (
            ["train", "--config", RECIPE, "--data.batch", "3"],
            "unknown option --data.batch; did you mean --data.batch_size",
        ),
        (
            ["train", "--config", RECIPE, "--training.lr", "fast"],
            "option training.lr: Expected a float. Got value: fast",
        ),
        (
            ["train", "--config", RECIPE, "--data.name", "digit"],
            "unknown data set 'digit' as data.name; did you mean digits?",
        ),
        (["train", "--config", RECIPE, "--data.channels", "3"], "data.mean has 1 numbers for 3 channel(s)"),
        (["train", "--config", RECIPE, "--model.name", "meta_spikeformer"], "did you mean meta_spikeformer_"),
        (["train", "--config", RECIPE, "--model.kwargs.heads", "3"], "has no option 'heads'; it has dims"),
        (["train", "--config", RECIPE, "--run_dir", "none", "--resume"], "none holds no run"),
        (["eval"], "give the checkpoint first"),
        (["eval", "none.ckpt"], "no checkpoint none.ckpt"),
        (["eval", RECIPE], "is no checkpoint of `spikeformers train`"),
        (["predict", "none.ckpt", "none.png"], "no checkpoint none.ckpt"),
        (["list", "resnet*"], "no model matches 'resnet*'; spikeformers list shows all"),
        (["import", "none.pth", "out.safetensors", "--model", "meta_spikeformer_15m"], "none.pth"),
        (["import", "none.pth", "out.safetensors", "--model", "x", "--time_steps"], "options of the model look like"),
    ],
    ids=lambda value: " ".join(value[-2:])[-30:] if isinstance(value, list) else "",
)
def test_mistakes_are_answered_in_one_line(says, argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in says(*argv)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_in_a_recipe(says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = Path(RECIPE).read_text()
    for old, new, message in (
        ("epochs:", "epocs:", "unknown key training.epocs; did you mean --training.epochs"),
        ("seed:", "seeds:", "unknown key seeds; did you mean --seed"),
        ("lr: 3", "lr: x3", "option training.lr: Expected a float"),
        ("[0.3]", "[0.3", "Problems parsing config"),
    ):
        Path("recipe.yaml").write_text(text.replace(old, new, 1))
        assert message in says("train", "--config", "recipe.yaml")


def test_mistakes_with_a_checkpoint(trained, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = str(trained / "best.ckpt")
    assert "no image file none.png; check the path" in says("predict", checkpoint, "none.png")
    assert "is not an image that Pillow can read" in says("predict", checkpoint, RECIPE)
    assert "unknown option --data.roots; did you mean --data.root" in says("eval", checkpoint, "--data.roots", "x")
    error = says("train", "--config", RECIPE, *QUICK, "--run_dir", str(trained))
    assert "is not empty; continue its run with --resume or choose another --run_dir" in error


@pytest.mark.parametrize(
    "argv", [["--help"], *([verb, "--help"] for verb in ("train", "eval", "predict", "list", "doctor"))]
)
def test_help(argv, capsys):
    assert main(argv) == 0
    assert "usage: spikeformers" in capsys.readouterr().out


def test_shard_packs_folders_for_training(tmp_path, says, capsys):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / "images" / split / name / f"{i}.png")
    assert main(["shard", str(tmp_path / "images"), str(tmp_path / "shards"), "--images", "4"]) == 0
    assert capsys.readouterr().out.count("6 images in 2 shards: ") == 2
    data = ImageData("webdataset", str(tmp_path / "shards"), img_size=8)
    assert data.source(training=True).classes == ["cat", "dog"] and len(data.source(training=False)) == 6
    assert "has train shards or a folder train already" in says(
        "shard", str(tmp_path / "images"), str(tmp_path / "shards")
    )


def test_warnings_are_one_line_for_people(tmp_path):
    """In a process of its own, as pytest catches warnings."""
    program = "\n".join(
        [
            "import sys, warnings",
            "from spikeformers import cli",
            "from spikeformers.cli._verb import Verb",
            r"cli.VERBS['list'] = Verb('list', lambda call: warnings.warn('an odd\nfile'))",
            "sys.exit(cli.main(['list']))",
        ]
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == "spikeformers: warning: an odd file\n"
