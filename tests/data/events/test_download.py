"""Downloads: fetched once, and what is said where that fails."""

import functools
import hashlib
import http.server
import threading
import zipfile

import pytest

from spikeformers.data.events import EventData, download
from spikeformers.data.events.datasets import DATASETS
from spikeformers.data.events.download import Archive


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path):
    """A folder and the address of a server, on this machine, that offers it."""
    (tmp_path / "site").mkdir()
    handler = functools.partial(Quiet, directory=tmp_path / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path / "site", f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def archive(path, folder, made):
    with zipfile.ZipFile(path, "w") as file:
        for label in range(10):
            made.bin_file(path.parent / "one.bin", made.events(seed=label))
            file.write(path.parent / "one.bin", f"{folder}/{label}/00001.bin")
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_what_is_missing_is_fetched_once(tmp_path, site, monkeypatch, made):
    folder, address = site
    offered = [
        Archive(split, f"{split}.zip", f"{address}/{split}.zip", archive(folder / f"{split}.zip", split, made))
        for split in ("Train", "Test")
    ]
    monkeypatch.setattr(DATASETS["nmnist"], "archives", offered)
    root = tmp_path / "data"
    data = EventData("nmnist", str(root), download=True)
    assert len(data.source(training=True)) == len(data.source(training=False)) == 10
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["Test", "Train", "frames_cache"]
    monkeypatch.setattr(download.utils, "download_url", None)
    assert data.source(training=True)[3][1] == 3


@pytest.mark.parametrize("offer", ["nothing", "another file", "another folder"])
def test_a_failed_download_says_what_to_fetch_by_hand(tmp_path, site, monkeypatch, offer, made):
    folder, address = site
    md5 = "0" * 32
    if offer == "another file":
        archive(folder / "Train.zip", "Train", made)
    elif offer == "another folder":
        md5 = archive(folder / "Train.zip", "Others", made)
    url = f"{address}/Train.zip"
    monkeypatch.setattr(DATASETS["nmnist"], "archives", [Archive("Train", "Train.zip", url, md5)])
    size = "of a size .*" if offer == "nothing" else f"{(folder / 'Train.zip').stat().st_size:,} bytes"
    with pytest.raises(ValueError, match=f"nmnist .*{url} .{size}, md5 {md5}. by hand to .*data/Train.zip"):
        EventData("nmnist", str(tmp_path / "data"), download=True).source(training=True)
    assert not (tmp_path / "data" / "Train").exists()
