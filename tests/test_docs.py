"""Every Python block of README and docs runs, those of a page one after another in one namespace, in a folder of its own."""

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from spikeformers.models import forget_network, list_models

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[str]:
    """Its Python blocks, behind as many empty lines as stand before them, so that errors tell the page's line."""
    text = page.read_text(encoding="utf-8")
    return ["\n" * text.count("\n", 0, found.start(1)) + found[1] for found in BLOCK.finditer(text)]


def readme(names: dict) -> None:
    """What README takes for granted: a picture, a published file, a recording."""
    import spikeformers

    Image.new("RGB", (40, 32), "gray").save("cat.jpg")

    model = spikeformers.create_model("meta_spikeformer_55m", distillation=True, time_steps=4)
    torch.save(model.state_dict(), "55M_kd_T4.pth")
    spikeformers.save_model(spikeformers.create_model("spiking_vgg9"), "55m.safetensors")
    np.savez("recording.npz", t=[1, 2, 9], x=[0, 3, 1], y=[0, 1, 2], p=[0, 1, 1], width=4, height=4)


def conversion(names: dict) -> None:
    """A network with weights, and images."""
    network = timm.create_model("vit_tiny_patch16_224", **SMALL).eval()
    torch.save(network.state_dict(), "vit.pth")
    images = torch.rand(4, 3, 32, 32)
    names |= {"network": network, "images": images, "image": images}


def energy(names: dict) -> None:
    """A checkpoint with early classifiers, as training leaves it."""
    import spikeformers

    model = spikeformers.shrink(
        spikeformers.create_model("spiking_vgg9", time_steps=2), (2, 2, 1, 1), early_classifiers=True
    )
    Path("runs/ssnn/1").mkdir(parents=True)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "model_config": dict(model.config), "known": {}}, "runs/ssnn/1/best.ckpt")
    names["frames"] = torch.rand(2, 4, 2, 48, 48).round()


def glossary(names: dict) -> None:
    """A network, images and batches with labels."""
    import spikeformers

    model, images = spikeformers.create_model("spiking_vgg9", time_steps=2).eval(), torch.rand(2, 4, 2, 48, 48).round()
    names |= {"model": model, "images": images, "loader": [(images, torch.arange(4))]}


SMALL = {"img_size": 32, "num_classes": 3}
GIVEN = {"README.md": readme, "conversion.md": conversion, "energy.md": energy, "glossary.md": glossary}
INSTEAD = {  # what nobody has on disk, and what would be downloaded
    '"recording.raw"': '"recording.npz"',
    'load_source("timm:vit_small_patch16_224")': f'load_source("timm:vit_tiny_patch16_224", {SMALL}, "vit.pth")',
}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {"__name__": "__main__"}
    if page.name in GIVEN:
        GIVEN[page.name](names)
    known = list_models()
    try:
        for block in blocks(page):
            for written, run in INSTEAD.items():
                block = block.replace(written, run)
            exec(compile(block, page.name, "exec"), names)
    finally:
        for name in set(list_models()) - set(known):
            forget_network(name)


def test_pages_have_blocks():
    assert sum(len(blocks(page)) for page in PAGES) >= 18
