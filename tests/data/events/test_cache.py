"""The frame cache: what is kept comes back, what changed or broke does not, and writers may die or meet."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from spikeformers.data.events.cache import FrameCache

PARAMETERS = {"time_steps": 4, "split_by": "number", "size": [5, 7]}


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "class" / "1.bin"
    path.parent.mkdir()
    path.write_bytes(b"events")
    return path


@pytest.fixture
def cache(tmp_path):
    return FrameCache(tmp_path / "cache", tmp_path, PARAMETERS)


def counts(largest=9, shape=(4, 2, 5, 7)):
    frames = np.random.default_rng(0).integers(0, largest, shape)
    frames[0, 0, 0, 0] = largest
    return frames.astype(np.int32)


@pytest.mark.parametrize(
    ("largest", "kind"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.int32)]
)
def test_frames_come_back_in_the_smallest_integers(cache, recording, largest, kind):
    frames = np.zeros((4, 2, 5, 7), np.int32) if not largest else counts(largest)
    assert cache.load(recording) is None
    cache.store(recording, None, frames)
    back = cache.load(recording)
    np.testing.assert_array_equal(back, frames)
    assert back.dtype == kind
    assert not list(cache.folder.rglob(".*"))


def test_names_depend_on_all_that_decides_the_frames(tmp_path, cache, recording):
    other = recording.with_name("2.bin")
    other.write_bytes(b"events")
    os.utime(other, ns=(0, recording.stat().st_mtime_ns))
    names = [cache.file(recording), cache.file(recording, (0, 5)), cache.file(recording, (0, 6)), cache.file(other)]
    for key, value in (("time_steps", 5), ("split_by", "time"), ("size", [7, 5])):
        names.append(FrameCache(cache.folder, tmp_path, {**PARAMETERS, key: value}).file(recording))
    os.utime(recording, ns=(0, 1))
    names.append(cache.file(recording))
    recording.write_bytes(b"other events")
    os.utime(recording, ns=(0, 1))
    names.append(cache.file(recording))
    assert len(set(names)) == len(names) == 9


def test_a_moved_data_set_keeps_its_cache(tmp_path, cache, recording):
    cache.store(recording, None, counts())
    moved = tmp_path.with_name(tmp_path.name + "_moved")
    tmp_path.rename(moved)
    assert FrameCache(moved / "cache", moved, PARAMETERS).load(moved / "class" / "1.bin") is not None


@pytest.mark.parametrize("damage", ["empty", "half", "one byte", "no archive", "another array", "a folder"])
def test_a_damaged_file_counts_as_missing_and_is_replaced(cache, recording, damage):
    cache.store(recording, None, counts())
    file = cache.file(recording)
    whole = file.read_bytes()
    middle = len(whole) // 2
    if damage == "another array":
        np.savez(file, other=counts())
    elif damage == "a folder":
        file.unlink()
        file.mkdir()
    else:
        flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
        file.write_bytes({"empty": b"", "half": whole[:middle], "one byte": flipped, "no archive": b"x" * 99}[damage])
    assert cache.load(recording) is None
    if damage == "a folder":
        file.rmdir()
    cache.store(recording, None, counts())
    np.testing.assert_array_equal(cache.load(recording), counts())


def test_nothing_of_the_data_is_run(cache, recording):
    cache.store(recording, None, counts())
    np.savez(cache.file(recording), frames=np.array([print], dtype=object))
    assert cache.load(recording) is None


def _write_until_killed(folder, root, path, whole, reached):
    """Stores frames `whole` times, and stops at the moment before the next are renamed."""
    cache = FrameCache(folder, root, PARAMETERS)
    for value in range(whole):
        cache.store(path, None, counts() + value)

    def stop(*names):
        reached.set()
        time.sleep(60)

    os.replace = stop
    cache.store(path, None, counts() + whole)


@pytest.mark.parametrize("whole", [0, 1, 2])
def test_a_killed_writer_leaves_whole_frames_or_none(tmp_path, cache, recording, whole):
    context = multiprocessing.get_context("fork")
    reached = context.Event()
    writer = context.Process(target=_write_until_killed, args=(cache.folder, tmp_path, recording, whole, reached))
    writer.start()
    assert reached.wait(20)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    back = cache.load(recording)
    assert back is None if whole == 0 else np.array_equal(back, counts() + whole - 1)
    assert len([path for path in cache.folder.rglob(".*") if path.is_file()]) == 1  # what the writer was at
    cache.store(recording, None, counts())
    np.testing.assert_array_equal(cache.load(recording), counts())


def _write_and_read(folder, root, path, times, queue):
    cache = FrameCache(folder, root, PARAMETERS)
    good = 0
    for _ in range(times):
        cache.store(path, None, counts())
        back = cache.load(path)
        good += back is not None and np.array_equal(back, counts())
    queue.put(good)


def test_two_processes_share_a_cache(tmp_path, cache, recording):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = cache.folder, tmp_path, recording, 50, queue
    writers = [context.Process(target=_write_and_read, args=arguments) for _ in range(2)]
    for writer in writers:
        writer.start()
    assert [queue.get(timeout=20) for _ in writers] == [50, 50]
    for writer in writers:
        writer.join()
    assert len(list(cache.folder.rglob("*.*"))) == 1


def test_a_full_disk_costs_one_warning(cache, recording, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.warns(UserWarning, match="No space left") as warned:
        cache.store(recording, None, counts())
        cache.store(recording, None, counts())
    assert len(warned) == 1
    assert cache.load(recording) is None and not list(cache.folder.rglob(".*"))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        FrameCache(tmp_path / "file" / "cache", tmp_path, PARAMETERS)
