"""Puts a trained network into the package: half-precision weights, what they are worth, and a card.

    uv run python benchmarks/ship.py runs/edge/best.ckpt spiking_resnet_edge.cifar10 --root FOLDER --recipe cifar10_edge --hours 2.5

Everything is measured with the weights as they ship. The official test samples choose nothing here: the checkpoint is given. Robustness
is that of the first 1,000 test images with their pixels changed: noise of standard deviation 0.1 (pixels are 0 to 1), a Gaussian blur
of 1 pixel, contrast times 0.5. Milliseconds are CPU time of one thread for one image, the median of many, which other programs on the
machine lengthen less than wall time: of the merged network under torch, and of `event_driven` with the weights that were fastest.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset
from torchvision.transforms.functional import gaussian_blur

import spikeformers
from spikeformers._files import write_atomically
from spikeformers.data import TestSet, test_loader
from spikeformers.evaluation import load_trained
from spikeformers.measure import emissions
from spikeformers.models.shipped import FOLDER, ship

PRECISIONS = ("float32", "bfloat16", "int8")


def answers(model, loader, changed=lambda x: x):
    """Logits of every time step [T, samples, classes], and labels [samples]."""
    with torch.no_grad():
        pairs = [(model(changed(x), per_step=True).float(), labels) for x, labels in loader]
    return torch.cat([logits for logits, _ in pairs], 1), torch.cat([labels for _, labels in pairs])


def share(logits, labels):
    """Right answers of the mean over time."""
    return (logits.mean(0).argmax(1) == labels).double().mean().item()


def robustness(model, test_set, samples=1000):
    """Accuracy on the first images as they are, and with their pixels changed."""
    data = test_set.data
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    generator = torch.Generator().manual_seed(0)

    def on_pixels(change):
        return lambda x: (change(x * std + mean).clamp(0, 1) - mean) / std

    loader = DataLoader(Subset(test_set, range(min(samples, len(test_set)))), 100)
    changes = {
        "as they are": lambda x: x,
        "noise of 0.1": on_pixels(lambda x: x + 0.1 * torch.randn(x.shape, generator=generator)),
        "blur of 1 pixel": on_pixels(lambda x: gaussian_blur(x, [5, 5], [1.0, 1.0])),
        "half the contrast": on_pixels(
            lambda x: 0.5 * (x - x.mean((1, 2, 3), keepdim=True)) + x.mean((1, 2, 3), keepdim=True)
        ),
    }
    return {name: share(*answers(model, loader, change)) for name, change in changes.items()}


def milliseconds(model, x, runs=200):
    """Median CPU time of one call."""
    with torch.no_grad():
        for _ in range(10):
            model(x)
        spent = []
        for _ in range(runs):
            start = time.process_time()
            model(x)
            spent.append(1e3 * (time.process_time() - start))
    return statistics.median(spent)


def speeds(model, batch):
    """Milliseconds of one image by every way to run the network."""
    one = batch[:1]
    found = {"torch, merged": milliseconds(spikeformers.merge(model).eval(), one)}
    for precision in PRECISIONS:
        found[f"event_driven, {precision}"] = milliseconds(
            spikeformers.event_driven(model, one, precision=precision), one
        )
    return found


def table(rows, header):
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


def card(key, entry, measured, profile):
    """The network's card in Markdown."""
    report = profile.to_dict()
    presets = [
        [made["preset"], f"{made['ac'] / 1e6:.2f} M", f"{made['mac'] / 1e6:.2f} M", f"{1e3 * made['energy_mj']:.3g}"]
        for made in report["presets"]
    ]
    steps = ", ".join(f"{accuracy:.2%}" for accuracy in measured["per_step"])
    return f"""# {key}

{entry["parameters"]:,} parameters, {entry["time_steps"]} time step{"s" * (entry["time_steps"] > 1)}; {entry["accuracy"]:.2%} of the {entry["test_samples"]:,} official test samples of {entry["data"]}.
Made by `benchmarks/ship.py`; every figure is that of the half-precision weights that ship.

```python
import spikeformers
model = spikeformers.create_model("{key}", pretrained=True).eval()
```

## Training
Recipe `{entry["recipe"]}`, {entry["hours"]:g} hours of one CPU core, seed {entry["seed"]}. {measured["note"]}

## Accuracy
After each time step: {steps}.

{table([[name, f"{value:.1%}"] for name, value in measured["classes"].items()], ["class", "right"])}

The first 1,000 test samples with their pixels changed:

{table([[name, f"{value:.1%}"] for name, value in measured["robustness"].items()], ["pixels", "right"])}

## Spikes and operations
Firing rate over all neurons {entry["firing_rate"]:.4f}; {entry["density"]:.4f} of the multiply-adds of layers that read spikes are carried out, as additions.

{table([[name, f"{rate:.4f}"] for name, rate in measured["rates"].items()], ["neurons", "spikes per neuron and time step"])}

Per sample, by every preset ({report["samples"]} samples):

{table(presets, ["preset", "additions", "multiply-adds", "energy, uJ"])}

Audit: {profile.audit.verdict}. Merged: {profile.audit_merged.verdict if profile.audit_merged else "cannot be merged"}.

## Speed
CPU milliseconds of one image, one thread, while other programs ran:

{table([[name, f"{value:.3f}"] for name, value in measured["speeds"].items()], ["run by", "ms"])}

## Limits and licence
It knows the {len(entry["classes"])} classes {", ".join(entry["classes"])} in images of {" x ".join(map(str, report["input_shape"][-2:]))} pixels like those it was trained on, and answers
something for any other picture too. Not tested for fairness or safety, and for no use where a wrong answer does harm. The weights are
under the licence of this library; the training data have terms of their own.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("key", help="NAME.TAG")
    parser.add_argument("--root", required=True, help="where the data are")
    parser.add_argument("--public_root", default="data/cifar10", help="data.root as the shipped file names it")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--hours", type=float, required=True, help="of training, of one core")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--note", default="", help="a sentence for the card")
    parser.add_argument("--samples", type=int, default=500, help="for operations and energy")
    args = parser.parse_args()
    torch.set_num_threads(1)

    trained = load_trained(args.checkpoint)
    public = replace(trained.data, root=args.public_root, holdout=0, workers=0)
    known = json.dumps({"data": asdict(public), "classes": trained.classes})
    ship(trained.model, args.key, {"spikeformers": known}, {"classes": trained.classes})
    model = load_trained(FOLDER / f"{args.key}.safetensors").model
    test_set = TestSet(replace(public, root=args.root))
    with emissions(model) as counted:
        logits, labels = answers(model, test_loader(test_set))
    rates, firing_rate = counted().firing_rates, counted().firing_rate
    profile = spikeformers.profile(
        model, DataLoader(Subset(test_set, range(args.samples)), 100), title=args.key, classes=trained.classes, maps=0
    )
    read_spikes = [layer for layer in profile.layers if layer.ac and not layer.mac]
    found = speeds(model, torch.stack([test_set[index][0] for index in range(8)]))
    entry = {
        "data": "CIFAR-10" if "cifar10" in args.public_root else public.name,
        "classes": trained.classes,
        "accuracy": share(logits, labels),
        "test_samples": len(labels),
        "time_steps": model.time_steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "firing_rate": firing_rate,
        "density": sum(layer.ac for layer in read_spikes) / max(1, sum(layer.dense for layer in read_spikes)),
        "milliseconds": min(found.values()),
        "recipe": args.recipe,
        "hours": args.hours,
        "seed": args.seed,
    }
    ship(trained.model, args.key, {"spikeformers": known}, entry)
    measured = {
        "note": args.note,
        "per_step": [share(logits[: t + 1], labels) for t in range(len(logits))],
        "classes": {name: share(logits[:, labels == i], labels[labels == i]) for i, name in enumerate(trained.classes)},
        "robustness": robustness(model, test_set),
        "rates": rates,
        "speeds": found,
    }
    write_atomically(Path(FOLDER) / f"{args.key}.md", card(args.key, entry, measured, profile).encode())
    print(profile)
    print(json.dumps(entry, indent=2))


if __name__ == "__main__":
    main()
