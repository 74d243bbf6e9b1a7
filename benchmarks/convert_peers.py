"""Conversion of the ViT of vit_cifar10.py, by us and by SpikingJelly: accuracy and agreement with the network after T steps.

    uv run --group bench python benchmarks/convert_peers.py --root FOLDER --weights runs/vit_cifar10.safetensors

SpikingJelly's STATransformerRecipe takes torchvision's ViT, so the weights are copied into one, which must answer alike. It is made
for an impulse, the image in the first step and zeros afterwards, whose answer is the sum of what came out; fed with a constant current it
gets image / T in every step. It is converted anew for every T, and its spikes are whole numbers without a limit. Ours read a constant current
and have nine levels. One run answers at every T, with thresholds for --fit steps; "each T" is a run for each, with thresholds of its own.
"""

import argparse
import json
from pathlib import Path

import timm
import torch
import torchvision
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.ann2snn import FXConverter, STATransformerRecipe
from tqdm import tqdm

from spikeformers._files import as_csv, write_atomically
from spikeformers.data import ImageData, TestSet, TrainingSet
from spikeformers.evaluation import any_time
from spikeformers.models._reading import read_state_dict
from spikeformers.transforms.sta import convert

BATCH = 50
LAYER = {
    "ln_1": "norm1",
    "self_attention.in_proj_": "attn.qkv.",
    "self_attention.out_proj": "attn.proj",
    "ln_2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
}
OUTSIDE = {
    "class_token": "cls_token",
    "encoder.pos_embedding": "pos_embed",
    "conv_proj": "patch_embed.proj",
    "encoder.ln": "norm",
    "heads.head": "head",
}


def torchvision_twin(vit) -> torchvision.models.VisionTransformer:
    """torchvision's ViT with the weights of timm's."""
    width, patch = vit.embed_dim, vit.patch_embed.patch_size[0]
    twin = torchvision.models.VisionTransformer(
        vit.patch_embed.img_size[0],
        patch,
        len(vit.blocks),
        vit.blocks[0].attn.num_heads,
        width,
        4 * width,
        num_classes=vit.num_classes,
    )
    state, renamed = vit.state_dict(), {}
    for key in twin.state_dict():
        if key.startswith("encoder.layers."):
            number, _, rest = key.removeprefix("encoder.layers.encoder_layer_").partition(".")
            ours = next(rest.replace(a, b, 1) for a, b in LAYER.items() if rest.startswith(a))
            renamed[key] = state[f"blocks.{number}.{ours}"]
        else:
            renamed[key] = state[next(key.replace(a, b, 1) for a, b in OUTSIDE.items() if key.startswith(a))]
    twin.load_state_dict(renamed)
    return twin.eval()


@torch.no_grad()
def peer(network, calibration, images, T: int, mode: str, constant: bool) -> torch.Tensor:
    """SpikingJelly's answers [N, classes] after T steps."""
    recipe = STATransformerRecipe([(x, None) for x in calibration.split(BATCH)], T, mode)
    converted = FXConverter(recipe=recipe, device="cpu").convert(network).eval()
    functional.set_step_mode(converted, "m")
    answers = []
    for x in tqdm(images.split(BATCH), desc=f"peer, {mode}, T = {T}", leave=False):
        functional.reset_net(converted)
        sequence = (x / T).repeat(T, 1, 1, 1, 1) if constant else torch.stack([x] + [torch.zeros_like(x)] * (T - 1))
        answers.append(converted(sequence).sum(0))
    return torch.cat(answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="CIFAR-10 as mosaics")
    parser.add_argument("--weights", type=Path, required=True, help="of vit_cifar10.py; its .json lies beside it")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--calibration", type=int, default=256)
    parser.add_argument("--fit", type=int, default=32)
    parser.add_argument("--time_steps", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    vit = timm.create_model(
        "vit_tiny_patch16_224", **json.loads(options.weights.with_suffix(".json").read_text())
    ).eval()
    vit.load_state_dict(read_state_dict(options.weights))
    data = ImageData("mosaics", options.root, mean=vit.pretrained_cfg["mean"], std=vit.pretrained_cfg["std"])
    source, transform, test = TrainingSet(data, 0).source, data.transform(training=False), TestSet(data)
    calibration = torch.stack([transform(source[i][0]) for i in range(options.calibration)])
    step = len(test) // options.samples
    images, labels = zip(*(test[i] for i in range(0, step * options.samples, step)), strict=True)
    images, labels = torch.stack(images), torch.tensor(labels)
    twin = torchvision_twin(vit)
    with torch.no_grad():
        wanted = vit(images)
        difference = float((twin(images) - wanted).abs().max())
    assert difference < 1e-3, difference
    wanted = wanted.argmax(1)
    print(
        f"network {(wanted == labels).float().mean():.2%} of {len(labels)} images; torchvision's twin differs by {difference:.1e} at most"
    )
    columns = {}
    for mode in ("hybrid", "full"):
        converted = convert(vit, calibration.split(BATCH), options.fit, spiking=mode)
        parts = tqdm(
            list(zip(images.split(BATCH), labels.split(BATCH), strict=True)), desc=f"ours, {mode}", leave=False
        )
        rows = any_time(converted, vit, parts, max(options.time_steps)).rows()
        columns[f"ours, {mode}"] = [(rows[T - 1]["accuracy"], rows[T - 1]["agreement"]) for T in options.time_steps]
    converted, columns["ours, hybrid, each T"] = convert(vit, calibration.split(BATCH), options.time_steps), []
    for T in tqdm(options.time_steps, desc="ours, each T", leave=False):
        row = any_time(converted, vit, zip(images.split(BATCH), labels.split(BATCH), strict=True), T).rows()[-1]
        columns["ours, hybrid, each T"].append((row["accuracy"], row["agreement"]))
    for mode, constant in (("spiking_encoder", True), ("spiking_encoder", False)):
        found = []
        for T in options.time_steps:
            answers = peer(twin, calibration, images, T, mode, constant).argmax(1)
            found.append((float((answers == labels).float().mean()), float((answers == wanted).float().mean())))
        columns[f"SpikingJelly, {'constant current' if constant else 'impulse'}"] = found
    print(f"{'T':>4}" + "".join(f"{name:>32}" for name in columns))
    for i, T in enumerate(options.time_steps):
        print(f"{T:>4}" + "".join(f"{found[i][0]:>22.2%}{found[i][1]:>10.2%}" for found in columns.values()))
    if options.out:
        rows = [
            {"T": T}
            | {
                f"{name} {what}": found[i][j]
                for name, found in columns.items()
                for j, what in enumerate(("accuracy", "agreement"))
            }
            for i, T in enumerate(options.time_steps)
        ]
        write_atomically(options.out, as_csv(rows).encode())


if __name__ == "__main__":
    main()
