"""Profiles: measured and estimated, written and compared."""

import csv
import json

import pytest
import torch
from torch import nn

import spikeformers
from spikeformers import estimate, merge, profile
from spikeformers.profiling import compare


@pytest.mark.parametrize("preset", ["exact", "spikingformer", "meta_spikeformer"])
@pytest.mark.parametrize("kind", ["meta", "spikingformer"])
def test_measured_rates_give_the_measured_energy(kind, preset, images, request):
    """What is measured, given back as rates, is estimated to the same energy."""
    model = request.getfixturevalue(kind)()
    measured = profile(model, images, preset, merged=False)
    rates = dict(measured.counts.neuron_rates)
    for operation in measured.counts.weighted:
        if operation.spike_fed:
            rates[operation.module] = operation.data[0].rate
    estimated = estimate(model, images.shape[1:], rates, preset)
    # estimated pairs of spikes are independent, and firing near borders is as likely as elsewhere
    assert estimated.energy == pytest.approx(measured.energy, rel=0.1 if preset == "exact" else 1e-9)
    assert [layer.name for layer in estimated.layers] == [layer.name for layer in measured.layers]
    assert estimated.samples == 0 and measured.samples == 4


def test_published_names_are_understood():
    model = spikeformers.create_model("meta_spikeformer_cifar")
    ours = {
        "": 0.1,
        "stages.3.blocks.0.attention.branch.q": 0.3,
        "stages.3.blocks.0.attention.branch.k_lif": 0.05,
        "stages.3.blocks.0.mlp.lif": 0.2,
    }
    published = {"": 0.1, "block3[0].attn.q_conv": 0.3, "block3.0.attn.k_lif": 0.05, "block3.0.mlp.fc1_lif": 0.2}
    energies = {estimate(model, (3, 32, 32), rates, "meta_spikeformer").energy for rates in (ours, published)}
    assert len(energies) == 1


def test_profile_of_labelled_batches(meta, images):
    model = meta()
    with torch.no_grad():
        answers = model(images).argmax(1)
    labels = torch.stack([answers[0], answers[1], (answers[2] + 1) % 5, torch.tensor(-100)])
    found = profile(model, [(images[:3], labels[:3]), (images[3:], labels[3:])], classes=list("abcde"), maps=2)
    assert found.samples == 4 and found.accuracy == pytest.approx(2 / 3)  # the last one is padding
    with torch.no_grad():
        first_step = model(images, per_step=True)[0, :3].argmax(1)
    assert found.accuracy_per_step == pytest.approx([(first_step == labels[:3]).float().mean().item(), 2 / 3])
    assert found.input_shape == (3, 16, 12)
    of_two_classes = [0, next(i for i in (1, 2) if labels[i] != labels[0])]
    assert [sample["prediction"] for sample in found.maps] == ["abcde"[answers[i]] for i in of_two_classes]
    assert [stage["name"] for stage in found.maps[0]["stages"]] == [f"stages.{i}" for i in range(5)]
    assert found.maps[0]["stages"][-1]["map"].shape == (4, 3) and found.maps[0]["input"].shape == (16, 12, 3)
    assert found.merged.samples == 3 and found.merged.energy == pytest.approx(
        profile(merge(model, "neuromorphic"), [images[:3]], merged=False, maps=0).energy
    )
    assert found.merged.before == pytest.approx(profile(model, [images[:3]], merged=False, maps=0).energy)
    assert f"{found.merged.energy:.4g} mJ per sample on the first 3 samples" in str(found)
    assert not found.audit.additions_only and found.audit_merged.additions_only


def test_what_cannot_be_counted(meta, images):
    model = meta()
    for data, message in [
        (images * float("nan"), "NaN"),
        ([images, images[..., :8]], r"\[3, 16, 12\] and \[3, 16, 8\]"),
        ((images, torch.tensor([0, 1, 2, 99])), "labels up to 99 do not fit 4 answers of 5 classes"),
        ((images, torch.tensor([0])), "1 labels"),
        (images.numpy(), "not ndarray"),
        ({"pixels": images}, "none called pixels; it takes x"),
        (None, "not None"),
        ([], "no inputs"),
    ]:
        with pytest.raises(ValueError, match=message):
            profile(model, data, merged=False)
    with pytest.raises(ValueError, match="create_model"):
        profile("best.ckpt", images)


def test_maps_show_where_a_stage_fires():
    model = nn.Module()
    model.stages = nn.ModuleList([spikeformers.neurons.LIF(tau=1.0)])
    model.feature_info = [{"module": "stages.0"}]
    model.forward = lambda x: model.stages[0](x).mean((0, 2, 3, 4))
    frames = torch.zeros(4, 1, 2, 6, 8)
    frames[0, 0, :, 2, 5] = 1
    (sample,) = profile(model, frames, merged=False).maps
    (stage,) = sample["stages"]
    assert stage["map"][2, 5] == 0.25 and stage["map"].sum() == 0.25
    assert sample["input"].shape == (6, 8, 3) and (sample["input"][0, 0] == 1).all()  # white where no events are
    assert sample["input"][2, 5, 1] < 1


def test_neurobench_metrics(spikingformer, images):
    model = spikingformer()
    with torch.no_grad():
        model.head.weight[:, ::2] = 0
    found = profile(model, images, merged=False)
    metrics = found.neurobench
    assert metrics.footprint == sum(t.numel() * t.element_size() for t in model.state_dict().values())
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert metrics.connection_sparsity == pytest.approx(5 * 16 / sum(weight.numel() for weight in weights))
    spikes, total = 0, 0

    def count(module, args, out):
        nonlocal spikes, total
        spikes, total = spikes + out.sum().item(), total + out.numel()

    for module in model.modules():
        if isinstance(module, spikeformers.neurons.Neuron):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(images)
    assert metrics.activation_sparsity == pytest.approx(1 - spikes / total)
    assert 0 < metrics.effective_macs + metrics.effective_acs < metrics.dense
    head = next(o for o in found.counts.operations if o.module == "head")
    assert head.effective == 4 * 16 * 5  # half of the 32 inputs meet no weight


def test_written_files_hold_the_profile(meta, images, tmp_path):
    found = profile(meta(), images, "meta_spikeformer", title="mine & <yours>")
    found.write(tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"profile.json", "layers.csv", "report.html"}
    report = json.loads((tmp_path / "report" / "profile.json").read_text())
    assert (
        report["totals"]["energy_mj"]
        == found.energy
        == pytest.approx(sum(layer["energy_mj"] for layer in report["layers"]))
    )
    assert {entry["preset"] for entry in report["presets"]} == {"exact", "spikingformer", "meta_spikeformer", "honest"}
    assert (
        report["switches"]["repconv"] == "merged" and report["samples"] == 4 and report["mac_layers"] == ["stem.conv"]
    )
    assert all(
        row["stage"] in ("stem", "head", "head_lif") or row["stage"].startswith("stages.") for row in report["layers"]
    )
    with open(tmp_path / "report" / "layers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [layer.name for layer in found.layers]
    assert float(rows[1]["rate"]) == found.layers[1].rate and len(rows[1]["rate_per_step"].split()) == 2
    assert "mine &amp; &lt;yours&gt;" in (tmp_path / "report" / "report.html").read_text()


def test_comparison(meta, images, tmp_path):
    reports = []
    for steps in (1, 2):
        model = meta()
        model.time_steps = steps
        reports.append(profile(model, (images, torch.arange(4)), title=f"T = {steps}").to_dict())
    compare(reports, tmp_path)
    with open(tmp_path / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["time_steps"] for row in rows] == ["1", "2"]
    assert float(rows[0]["energy_mj"]) < float(rows[1]["energy_mj"])
    assert [float(row["accuracy"]) for row in rows] == [report["accuracy"] for report in reports]
    assert len(json.loads((tmp_path / "profiles.json").read_text())["profiles"]) == 2
    other = profile(meta(), images, "spikingformer", title="another way").to_dict()
    with pytest.raises(ValueError, match="T = 1 was accounted for by exact .* another way by spikingformer"):
        compare([reports[0], other], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_profile_in_words(meta, images):
    text = str(profile(meta(), images))
    assert "mJ per sample (exact, integers=mac)" in text and "times as much" in text
    assert "additions only in all" in text and "not a measurement" in text


def test_events_keep_their_time(meta):
    events = (torch.rand(3, 2, 3, 16, 12, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    counts = profile(meta(), 2 * events, "meta_spikeformer", merged=False)
    assert counts.layers[0].mac == 3 * 16 * 12 * 9 * 3 * 8  # the first convolution reads every frame
    found = profile(meta(), events, "meta_spikeformer", merged=False)
    assert found.input_shape == (3, 3, 16, 12) and found.counts.time_steps == 3
    assert found.layers[0].mac == 0 and found.layers[0].ac > 0  # frames of lone events are spikes
    named = estimate(meta(), (3, 3, 16, 12), {"": 0.1, "stem": 0.3}, "meta_spikeformer")
    assert named.layers[0].ac == pytest.approx(0.3 * named.layers[0].dense)
    assert all(len(rates) == 3 for rates in found.rates_per_step.values())
