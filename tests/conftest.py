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
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, "<pad>"))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A <eos>", None, [("<eos>", 1)])
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
        tokenizer.save_pretrained(folder)
        images = dict(size={"shortest_edge": 20}, crop_size=16, image_mean=[0.1, 0.2, 0.3], resample=2)
        transformers.CLIPImageProcessor(**images).save_pretrained(folder)
        return model

    return save
