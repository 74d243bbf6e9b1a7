"""Whoever counts gets the same number: evaluation, profile, any-time conversion, early exit and event-driven inference."""

from types import SimpleNamespace

import timm
import torch
from pytest import approx, fixture, mark
from torch import nn

from spikeformers import convert, event_driven, merge, profile, shrink
from spikeformers.evaluation import any_time, evaluate
from spikeformers.measure import COLUMNS, Accuracy, Tally, emissions, following
from spikeformers.profiling import Constants, early_exit_curve

CLASSES, STEPS = 5, 4
VIT = dict(img_size=16, patch_size=8, depth=1, embed_dim=24, num_heads=3, num_classes=CLASSES)


@fixture(scope="module", autouse=True)
def threads(one_thread):
    """All tests here run with one."""


@fixture(autouse=True)
def batches_for_samples(monkeypatch):
    """`evaluate` takes batches here."""
    monkeypatch.setattr("spikeformers.evaluation.classification.test_loader", lambda samples: samples)


@fixture
def data():
    """Two batches of unequal size, the last sample without a label; in float64, in which no rounding decides about a spike."""
    x = torch.randn(6, 3, 16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 4, -1])
    return Batches([(x[:4], labels[:4]), (x[4:], labels[4:])])


class Batches(list):
    """What `evaluate` asks of a test set."""

    classes, data = (), SimpleNamespace(name="made up")


def same_emissions(a: Tally, b: Tally):
    """Neuron by neuron; step by step where both know the steps."""
    assert a.neurons.keys() == b.neurons.keys() and a.neurons
    assert a.firing_rate == approx(b.firing_rate, rel=1e-12) and 0 < a.firing_rate < 1
    assert a.thresholds_per_step == approx(b.thresholds_per_step, rel=1e-6)
    for name, rate in a.firing_rates.items():
        assert rate == approx(b.firing_rates[name], rel=1e-12), name
        mine, theirs = a.firing_rates_per_step[name], b.firing_rates_per_step[name]
        assert len(mine) == 1 or len(theirs) == 1 or mine == approx(theirs, rel=1e-12), name


def same_answers(a: Accuracy, b: Accuracy):
    """Every sum of them."""
    assert (a.time_steps, a.samples, a.labelled) == (b.time_steps, b.samples, b.labelled)
    assert (
        torch.equal(a.right, b.right)
        and torch.equal(a.right_top5, b.right_top5)
        and torch.equal(a.confusion, b.confusion)
    )
    assert a.loss == approx(b.loss, rel=1e-5)


def same_costs(found, tally: Tally):
    """A profile's rows, its tally and another one, in every column and in energy."""
    totals = found.to_dict()["totals"]
    for each in (found.tally, tally):
        assert totals["synops"] == approx(each.per_sample("synops"), rel=1e-9)
        assert totals["mac"] == approx(each.per_sample("macs") + each.per_sample("functions"), rel=1e-9)
        assert totals["ac"] == approx(each.per_sample("synops") + each.per_sample("additions"), rel=1e-9)
        assert found.energy == approx(each.energy(), rel=1e-9)
        assert found.account("honest").synops == approx(each.per_sample("synops"), rel=1e-9)
        dearer = Constants(3.0, 0.5)
        assert found.account("exact", dearer).energy() == approx(each.energy(dearer), rel=1e-9)


NETWORKS = {
    "spikingformer": lambda model: model,
    "spikingformer shrunk": lambda model: shrink(model, (2, 1)),
    "meta merged": lambda model: merge(model, "neuromorphic"),
    "meta merged for cpus": lambda model: merge(model, "cpu"),
    "meta shrunk": lambda model: shrink(model, (4, 3, 2, 2, 1)),
}


@mark.parametrize("network", NETWORKS)
def test_evaluation_and_profile(network, data, request):
    model = NETWORKS[network](request.getfixturevalue(network.split()[0])().double())
    tested, found = evaluate(model, data), profile(model, data, maps=0, merged=False)
    same_answers(tested.answers, found.answers)
    same_emissions(tested.tally, found.tally)
    assert tested.firing_rate == found.firing_rate and tested.accuracy == found.accuracy
    assert tested.accuracy_per_step == found.accuracy_per_step
    whole = profile(model, (torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])), maps=0, merged=False)
    same_costs(found, whole.tally)
    parts = [profile(model, batch, maps=0, merged=False) for batch in data]
    same_costs(found, parts[0].tally + parts[1].tally)
    same_answers(found.answers, parts[0].answers + parts[1].answers)


def test_event_driven(spikingformer, data):
    model = spikingformer(depth=1).double()
    data = Batches(data[:1])
    driven = event_driven(model)
    tested, found = evaluate(driven, data), profile(driven, data, maps=0, merged=False)
    plain = profile(merge(model, "cpu"), data, maps=0, merged=False)
    same_answers(tested.answers, found.answers)
    same_emissions(tested.tally, found.tally)
    same_costs(found, plain.tally)
    if driven.live:
        read = {operation.module: operation.data[0].rate for operation in found.counts.weighted}
        layers = {layer.name: layer.density for layer in driven.layers() if layer.name in read}
        assert layers and layers == approx({name: read[name] for name in layers})
        assert {layer.name: layer.density for layer in found.event_driven.layers if layer.name in read} == layers
        assert driven.firing_rates() == approx(found.tally.firing_rates, rel=1e-12)


def test_early_exit(spikingformer, data):
    model = shrink(spikingformer().double(), (4, 2), early_classifiers=True)
    without = early_exit_curve(model, data, (0.5,))[-1]
    model.remove_early_classifiers()
    tested, found = evaluate(model, data), profile(model, data, maps=0, merged=False)
    assert without.accuracy == tested.accuracy == found.accuracy
    assert without.energy == approx(found.energy, rel=1e-12)


def vit():
    return timm.create_model("vit_tiny_patch16_224", **VIT).eval(), (16, 16)


def convolutions():
    layers = (
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 48, CLASSES),
    )
    return nn.Sequential(*layers).eval(), (16, 12)


@mark.parametrize("levels", [1, 4])
@mark.parametrize("network", [vit, convolutions], ids=lambda make: make.__name__)
def test_conversion(network, levels, data):
    torch.manual_seed(0)
    model, size = network()
    model, data = (
        model.double(),
        Batches((torch.randn(len(x), 3, *size, dtype=torch.float64), labels) for x, labels in data),
    )
    converted = convert(model, torch.cat([x for x, _ in data]), STEPS, levels=levels)
    tested, found, over_time = (
        evaluate(converted, data),
        profile(converted, data, maps=0),
        any_time(converted, model, data),
    )
    assert found.chosen.switches["integers"] == "levels"  # what emits bursts adds
    for answers, tally in ((tested.answers, tested.tally), (over_time.answers, over_time.tally)):
        same_answers(found.answers, answers)
        same_emissions(found.tally, tally)
    same_costs(found, over_time.tally)
    last = over_time.rows()[-1]
    assert last["energy_mj"] == approx(found.energy) and last["firing_rate"] == approx(found.firing_rate)
    assert last["accuracy"] == found.accuracy and last["thresholds"] == approx(found.tally.thresholds_per_step)
    assert (last["thresholds"] > last["firing_rate"]) == (levels > 1)
    assert [row["accuracy"] for row in over_time.rows()] == found.accuracy_per_step
    assert [row["synops"] for row in over_time.rows()] == approx(
        torch.tensor(found.tally.per_step("synops")).cumsum(0).tolist()
    )
    for form in ("means", "spikes"):
        state = converted.start(form, counting=True)
        for _ in converted.steps(data[0][0], state=state):
            pass
        same_emissions(state.tally, profile(converted, data[0][0], maps=0).tally)
    driven = event_driven(converted)
    driving = evaluate(driven, data)
    same_answers(driving.answers, found.answers)
    same_emissions(driving.tally, found.tally)
    if driven.live:
        with following(converted) as recorder:
            recorder.run(data[-1][0])
        weighted = [
            operation for operation in recorder.operations.values() if operation.category in ("convolution", "linear")
        ]
        read = {operation.module: operation.data[0].rate_per_step[-1] for operation in weighted}
        layers = {f"model.{layer.name.split(':')[0]}": layer.density for layer in driven.layers()}  # in the last step
        assert layers and layers == approx({name: read[name] for name in layers})


def test_bursts_are_as_many_additions_and_padding_is_none():
    """One neuron that emits three thresholds at a corner: a 3 x 3 kernel reaches four places of two channels there."""
    layer = nn.Conv2d(1, 2, 3, padding=1)
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), layer, nn.Flatten(), nn.Linear(32, 2)).eval()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = 3.0
    converted = convert(model, x, 1, levels=3, potential=0.5)
    converted.thresholds = {1: {place: torch.ones_like(values) for place, values in converted.thresholds[1].items()}}
    tally = profile(converted, x, maps=0).tally
    convolution = next(row for place, row in tally.rows.items() if place.endswith("2: convolution 3x3"))
    assert convolution[COLUMNS.index("synops")].tolist() == [3 * 4 * 2]
    assert convolution[COLUMNS.index("additions")].tolist() == [2 * 16]  # biases
    assert tally.neurons["1:relu"][:3].tolist() == [[1.0], [3.0], [16.0]]


def test_emissions_do_not_depend_on_who_runs_the_network(spikingformer, data):
    model = spikingformer().double()
    with torch.no_grad(), emissions(model) as tally:
        for x, _ in data:
            model(x)
    same_emissions(tally(), evaluate(model, data).tally)
