"""Runs before torch loads: threads, compiled modules, and how the tests are shared by processes."""

import os
import sys
from pathlib import Path

import pytest

# OpenMP threads sleep while they wait, so that a busy machine does not slow the tests down
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# where modules are not to be kept in compiled form, every command that a test starts would compile torch's again, for 15 seconds
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


def pytest_xdist_auto_num_workers(config):
    """All tests are run by several processes of one thread each; tests named on the command line by this process alone, which
    starts sooner and shows what they print."""
    if config.getoption("file_or_dir"):
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return None


@pytest.fixture(scope="module")
def one_thread():
    """Small networks gain nothing from threads, and on a busy machine they wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def save_dual_encoder():
    """A function that writes a small CLIP or SigLIP with its tokenizer and image processor into a folder, and returns it."""

    def save(folder, kind="CLIP"):
        transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
        import torch

        words = ["<pad>", "<eos>", "a", "photo", "of", "sketch", "cat", "dog", "truck", "flying", "fish", "."]
        tower = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
        width = {"projection_dim": 24} if kind == "CLIP" else {}
        ends = dict(bos_token_id=1, eos_token_id=1, pad_token_id=0)
        text = dict(tower, vocab_size=len(words), max_position_embeddings=8, **ends, **width)
        vision = dict(tower, image_size=16, patch_size=8, **width)
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=vision, **width)
        model = getattr(transformers, f"{kind}Model")(config).eval()
        model.save_pretrained(folder)
        tokenizer = tokenizers.Tokenizer(
            tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, "<pad>")
        )
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A <eos>", None, [("<eos>", 1)])
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"
        )
        tokenizer.save_pretrained(folder)
        images = dict(size={"shortest_edge": 20}, crop_size=16, image_mean=[0.1, 0.2, 0.3], resample=2)
        transformers.CLIPImageProcessor(**images).save_pretrained(folder)
        return model

    return save


META = dict(
    dims=(16, 16, 32, 32), depths=(1, 1, 1, 1, 1), strides=(1, 2, 2, 1, 1), stem_kernel=3, num_heads=2, num_classes=5
)
SPIKINGFORMER = dict(embed_dim=32, depth=2, num_heads=2, pools=(False, False, True, True), num_classes=5)


def awake(model, x):
    """The model in eval mode with the statistics of x and shifts that let every layer of neurons fire."""
    import torch
    from torch import nn

    for name, norm in model.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
            attends = any(f".{side}." in name for side in "qkv") and not name.endswith(("expand_bn", "project_bn"))
            nn.init.constant_(norm.bias, 2.0 if attends else 0.6)  # attention between few tokens needs many spikes
    with torch.no_grad():
        for _ in range(3):  # RepConv's border is made of the running statistics
            model.train()(x)
    return model.eval()


@pytest.fixture
def images():
    """Four of 3 x 16 x 12."""
    import torch

    return torch.randn(4, 3, 16, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def meta(images):
    """Makes small Meta-SpikeFormers of which every layer fires for the images."""
    import torch

    from spikeformers.models.meta_spikeformer import MetaSpikeFormer

    def make(**kwargs):
        torch.manual_seed(0)
        return awake(MetaSpikeFormer(**{**META, "time_steps": 2, **kwargs}), images)

    return make


@pytest.fixture
def spikingformer(images):
    """Makes small Spikingformers of which every layer fires for the images."""
    import torch

    from spikeformers.models.spikingformer import Spikingformer

    def make(**kwargs):
        torch.manual_seed(0)
        return awake(Spikingformer(**{**SPIKINGFORMER, "time_steps": 2, **kwargs}), images)

    return make
