"""Trains a small ViT of timm on CIFAR-10, to be converted. All but the last epochs see half of each image's patches, to save time.

    python benchmarks/vit_cifar10.py --root FOLDER --out runs/vit_cifar10.safetensors
    spikeformers convert vit_tiny_patch16_224 --kwargs "$(cat runs/vit_cifar10.json)" --weights runs/vit_cifar10.safetensors \
        --data.name mosaics --data.root FOLDER --data.img_size 32 --data.crop_pct 1 --samples 0

FOLDER holds mosaics, see `Mosaics` in src/spikeformers/data/images/mosaics.py, or torchvision's copy with --data cifar10.
"""

import argparse
import json
import time
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch.nn import functional as F

from spikeformers.data import ImageData, TestSet, TrainingSet, test_loader, train_loader

ARCHITECTURE = {"img_size": 32, "patch_size": 4, "embed_dim": 128, "depth": 6, "num_heads": 4, "num_classes": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--data", default="mosaics")
    parser.add_argument("--out", type=Path, default=Path("runs/vit_cifar10.safetensors"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--whole", type=int, default=2, help="last epochs, that see all patches")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **ARCHITECTURE, patch_drop_rate=0.5)
    cfg = model.pretrained_cfg
    data = ImageData(
        options.data, options.root, mean=cfg["mean"], std=cfg["std"], crop_padding=4, batch_size=128, workers=1
    )
    train, test = train_loader(TrainingSet(data, seed=0)), test_loader(TestSet(data))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(model.parameters(), options.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, options.epochs * len(train), pct_start=0.1)
    start = time.perf_counter()
    for epoch in range(options.epochs):
        model.train()
        if epoch >= options.epochs - options.whole:
            model.patch_drop = torch.nn.Identity()
        train.sampler.set_epoch(epoch)
        losses = []
        for x, labels in train:
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(x).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            right = sum(int((model(x).argmax(1) == labels).sum()) for x, labels in test)
        print(
            f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}, test {right / 1e4:.2%}, {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        safetensors.torch.save_file(model.state_dict(), options.out)
        options.out.with_suffix(".json").write_text(json.dumps(ARCHITECTURE))


if __name__ == "__main__":
    main()
