"""`spikeformers convert`: what it prints and writes, and that it goes on where it was stopped."""

import csv
import io
import json
import urllib.error

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from spikeformers.cli import main
from spikeformers.cli._data import say_how_images_are_prepared
from spikeformers.data import ImageData
from spikeformers.evaluation import conversion, fetching, load_trained, preprocessing
from spikeformers.transforms.sta import convert

KWARGS = dict(img_size=16, patch_size=8, depth=1, embed_dim=24, num_heads=3, num_classes=2)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Weights of a small ViT, and twelve images in two classes."""
    folder = tmp_path_factory.mktemp("material")
    torch.manual_seed(0)
    save_file(timm.create_model("vit_tiny_patch16_224", **KWARGS).state_dict(), folder / "weights.safetensors")
    for i in range(12):
        place = folder / "val" / ("bright" if i % 2 else "dark")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (100 * (i % 2) + 9 * i, 7 * i, 80)).save(place / f"{i}.png")
    return folder


def command(material, run_dir, *more):
    return [
        *(
            "convert",
            "vit_tiny_patch16_224",
            "--kwargs",
            json.dumps(KWARGS),
            "--weights",
            str(material / "weights.safetensors"),
        ),
        *(
            "--calib",
            str(material / "val"),
            "--eval",
            str(material / "val"),
            "--time_steps",
            "6",
            "--data.batch_size",
            "4",
        ),
        *("--run_dir", str(run_dir), *more),
    ]


@pytest.fixture(scope="module")
def converted(material, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "vit"
    assert main(command(material, run_dir)) == 0
    return run_dir


def test_every_time_step_is_in_the_table(converted):
    rows = list(csv.DictReader((converted / "any_time.csv").open()))
    assert [int(row["time_steps"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    sops, energy = ([float(row[key]) for row in rows] for key in ("synops", "energy_mj"))
    assert sops == sorted(sops) and sops[0] > 0 and all(0 < float(row["firing_rate"]) < 1 for row in rows)
    assert all(float(row["firing_rate"]) < float(row["thresholds"]) < 4 for row in rows)
    macs, additions = (
        [float(row[a]) + float(row[b]) for row in rows] for a, b in (("macs", "functions"), ("synops", "additions"))
    )
    assert macs[0] > 4 * 24 * 3 * 64  # the patches, once
    assert energy == pytest.approx(
        [(0.9 * some + 4.6 * others) * 1e-9 for some, others in zip(additions, macs, strict=True)]
    )


def test_agreement_is_with_the_network_itself(material, converted):
    trained = load_trained(converted / "converted.safetensors")
    samples = torch.stack([trained.data.read(path) for path in sorted((material / "val").glob("*/*.png"))])
    network = timm.create_model("vit_tiny_patch16_224", **KWARGS).eval()
    network.load_state_dict(trained.model.model.state_dict())
    with torch.no_grad():
        wanted = network(samples).argmax(1)
    answers = trained.model(samples, per_step=True).cumsum(0).argmax(2)
    rows = list(csv.DictReader((converted / "any_time.csv").open()))
    for row, answer in zip(rows, answers, strict=True):
        assert float(row["agreement"]) == pytest.approx(float((answer == wanted).float().mean()))


def test_the_saved_network_is_evaluated_and_predicts(material, converted, capsys):
    checkpoint = str(converted / "converted.safetensors")
    rows = list(csv.DictReader((converted / "any_time.csv").open()))
    assert main(["eval", checkpoint]) == 0
    out = capsys.readouterr().out
    assert (
        f"accuracy     {float(rows[-1]['accuracy']):.2%} of 12 test samples (folder)" in out
        and "after 1 to 6 time steps" in out
    )
    assert main(["predict", checkpoint, str(material / "val" / "dark" / "0.png")]) == 0
    assert "dark" in capsys.readouterr().out
    assert main(["profile", checkpoint, "--samples", "12", "--report", str(converted / "page")]) == 0
    out = capsys.readouterr().out
    profiled = json.loads((converted / "page" / "profile.json").read_text())
    last = {name: pytest.approx(float(rows[-1][name])) for name in ("synops", "macs", "additions", "functions")}
    assert {name: sum(profiled["tally"][name]) for name in last} == last
    assert profiled["totals"]["energy_mj"] == pytest.approx(float(rows[-1]["energy_mj"]))
    assert profiled["mean_rate"] == pytest.approx(float(rows[-1]["firing_rate"]))
    assert profiled["accuracy_per_step"] == pytest.approx([float(row["accuracy"]) for row in rows])
    assert (
        "times its dense twin of 8 bits" in out
        and "integers=levels" in out
        and "6 time steps, 12 samples" in out
        and "audit" in out
        and "merged" not in out
    )


def test_it_goes_on_where_it_was_stopped(material, converted, tmp_path, monkeypatch, capsys):
    calls = []

    def stopping(*args, done, **kwargs):
        def once(result):
            done(result)
            calls.append(result.batches)
            if len(calls) == 2:
                raise KeyboardInterrupt

        return conversion_any_time(*args, done=once, **kwargs)

    conversion_any_time = conversion.any_time
    monkeypatch.setattr(conversion, "any_time", stopping)
    assert main(command(material, tmp_path / "run")) == 130
    assert "--resume" in capsys.readouterr().err
    assert main(command(material, tmp_path / "run")) == 2 and "--resume" in capsys.readouterr().err
    assert main(command(material, tmp_path / "run", "--resume", "--levels", "2")) == 2
    assert "levels" in capsys.readouterr().err
    assert main(command(material, tmp_path / "run", "--resume")) == 0
    assert calls == [1, 2, 3]
    assert (tmp_path / "run" / "any_time.csv").read_text() == (converted / "any_time.csv").read_text()


def test_what_is_missing_is_said_in_one_line(material, tmp_path, capsys):
    weights = ["--weights", str(material / "weights.safetensors"), "--kwargs", json.dumps(KWARGS)]
    for argv, words in (
        ([], "give the model first"),
        (["vit_tiny_patch16_224", *weights], "--calib FOLDER"),
        (["vit_tiny_patch16_224", *weights, "--calib", str(tmp_path)], "there are no images in the folder"),
        (["no_such_model", *weights, "--calib", str(material / "val")], "no_such_model"),
        (
            ["vit_tiny_patch16_224", "--weights", str(tmp_path / "none.pth"), "--calib", str(material / "val")],
            "none.pth",
        ),
        (
            ["vit_tiny_patch16_224", *weights, "--calib", str(material / "val"), "--data.img_size", "24"],
            "--data.img_size",
        ),
        (["transformers:/no/such/folder", "--calib", str(material / "val")], "there is no folder"),
    ):
        assert main(["convert", *argv]) == 2
        errors = [
            line for line in capsys.readouterr().err.splitlines() if "warning: images are prepared as" not in line
        ]
        assert len(errors) == 1 and words in errors[0], errors


def test_a_saved_conversion_answers_as_before(tmp_path):
    from spikeformers.transforms.sta import load_converted, load_source, save_converted

    torch.manual_seed(0)
    save_file(timm.create_model("vit_tiny_patch16_224", **KWARGS).state_dict(), tmp_path / "weights.safetensors")
    network = load_source("timm:vit_tiny_patch16_224", KWARGS, tmp_path / "weights.safetensors")
    x = torch.randn(3, 3, 16, 16)
    for spiking in ("hybrid", "full"):
        made = convert(network, x, (2, 5), levels=2, potential=0.25, spiking=spiking)
        save_converted(made, tmp_path / f"{spiking}.safetensors")
        again = load_converted(tmp_path / f"{spiking}.safetensors")
        assert torch.equal(made(x), again(x)) and torch.equal(made(x, time_steps=2), again(x, time_steps=2))
        assert again.spiking == spiking
    with pytest.raises(ValueError, match="nobody knows"):
        save_converted(
            convert(timm.create_model("vit_tiny_patch16_224", **KWARGS).eval(), x), tmp_path / "x.safetensors"
        )


def test_zero_shot_classification_by_the_names_of_folders(save_dual_encoder, tmp_path, capsys):
    save_dual_encoder(tmp_path / "clip")
    for name, colour in (("cat", (200, 30, 60)), ("flying_fish", (20, 90, 220))):
        for i in range(4):
            place = tmp_path / "images" / name / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20 + i, 20), colour).save(place)
    given = ["convert", f"transformers:{tmp_path / 'clip'}", "--calib", str(tmp_path / "images"), "--time_steps", "8"]
    assert main(given) == 2 and "needs the classes' names" in capsys.readouterr().err
    given += [
        "--eval",
        str(tmp_path / "images"),
        "--prompts",
        json.dumps(["a photo of {}", "a sketch of a {}"]),
        "--run_dir",
        str(tmp_path / "run"),
    ]
    assert main(given) == 0 and "agreement" in capsys.readouterr().out
    trained = load_trained(tmp_path / "run" / "converted.safetensors")
    assert (
        trained.classes == ["cat", "flying_fish"]
        and trained.data.img_size == 16
        and trained.data.mean == (0.1, 0.2, 0.3)
    )
    assert main(["eval", str(tmp_path / "run" / "converted.safetensors")]) == 0
    assert "of 8 test samples" in capsys.readouterr().out
    assert (
        main(["predict", str(tmp_path / "run" / "converted.safetensors"), str(tmp_path / "images" / "cat" / "0.png")])
        == 0
    )
    assert "flying_fish" in capsys.readouterr().out


def test_what_is_missing_is_said_within_seconds(tmp_path, monkeypatch, capsys):
    """Without a network, libraries try for a minute; and before anything is fetched everything else is looked at."""
    asked = []

    def no_network(request, timeout):
        asked.append(request.full_url)
        assert timeout <= 5
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(fetching.urllib.request, "urlopen", no_network)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching.torch.hub, "get_dir", lambda: str(tmp_path))
    for name in (
        "timm:vit_tiny_patch16_224",
        "vit_tiny_patch16_224",
        "torchvision:resnet18",
        "transformers:someone/something",
    ):
        with pytest.raises(
            ValueError,
            match="are not on this disk, and .* cannot be reached .no route to host.; fetch them once where there is",
        ):
            fetching.must_be_had(name, None)
    assert len(asked) == 4
    fetching.must_be_had("vit_tiny_patch16_224", "weights.pth")
    fetching.must_be_had("no_such_network", None)  # the library will say so
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        ValueError,
        match="HF_HUB_OFFLINE forbids to download them; .*give a file with --weights, or unset HF_HUB_OFFLINE",
    ):
        fetching.must_be_had("vit_tiny_patch16_224", None)
    assert len(asked) == 4
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(fetching.urllib.request, "urlopen", lambda request, timeout: io.BytesIO())
    fetching.must_be_had("vit_tiny_patch16_224", None)
    assert "vit_tiny_patch16_224: fetching its pretrained weights from" in capsys.readouterr().out


def test_other_arguments_are_looked_at_before_the_network(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetching, "must_be_had", lambda *_: pytest.fail("the network was asked"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "convert" / "resnet18").mkdir(parents=True)
    (tmp_path / "runs" / "convert" / "resnet18" / "converted.safetensors").touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    there = ["--calib", "."]
    for options, message in (
        ([], "nothing to choose thresholds by"),
        (["--calib", "none"], "--calib none is no folder"),
        ([*there, "--eval", "none"], "--eval none is no folder"),
        ([*there, "--weights", "none.pth"], "there is no file none.pth as --weights"),
        ([*there, "--levels", "0"], "levels is 0; give at least 1"),
        ([*there, "--samples", "-1"], "samples is -1; give at least 0"),
        ([*there, "--data.img_size", "0"], "data.img_size is 0"),
        ([*there, "--data.mean", "[0.5]", "--data.std", "[0.5,0.5]"], "data.std has 2 numbers for 1 channel"),
        (there, "holds a conversion already"),
    ):
        assert main(["convert", "resnet18", *options]) == 2
        assert message in capsys.readouterr().err


def test_it_is_said_how_images_are_prepared_and_who_says_so(tmp_path):
    network = timm.create_model("resnet18", num_classes=3)
    given, said = preprocessing(network)
    assert (
        given["mean"] == (0.485, 0.456, 0.406)
        and given["img_size"] == 224
        and "as the library describes its own weights" in said
    )
    weights = tmp_path / "model.safetensors"
    (tmp_path / "config.json").write_text(
        '{"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "input_size": [3, 32, 32], "std": "x"}}'
    )
    given, said = preprocessing(network, weights)
    assert given["mean"] == (0.1, 0.2, 0.3) and given["img_size"] == 32 and given["std"] == (0.229, 0.224, 0.225)
    assert said == f"as {tmp_path / 'config.json'} says"
    (tmp_path / "config.json").write_text("[" * 100_000)
    given, said = preprocessing(network, weights)
    with pytest.warns(
        UserWarning,
        match=r"mean 0.485, 0.456, 0.406, .*std as given; .*: a guess, since .*model.safetensors does not say; give --data.img_size",
    ):
        say_how_images_are_prepared({"std"}, ImageData(**given), given, said, weights)
    assert preprocessing(torch.nn.Linear(2, 2))[1] == "ImageNet's, since nothing says"
