"""Streaming: the batches of a resident section, bit for bit, in little memory, and no thread that stays behind."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.transforms import Compose
from toy_set import write_dataset

from aleatoric.data import DeviceLoader, load_dataset
from aleatoric.data.loading import loader
from aleatoric.data.loading.streaming import READ_AHEAD, read_ahead
from aleatoric.errors import InputError
from aleatoric.handlers import EpochSetter
from aleatoric.transforms import BatchRandAffined, BatchRandIntensityd

CPU = torch.device("cpu")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(write_dataset(tmp_path_factory.mktemp("prepared") / "set"))


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    assert not reading_threads()


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("aleatoric")]


def augmentation():
    return Compose(
        [BatchRandAffined(prob=0.8, rotate_range=3.1, translate_range=(1.0, 1.0)), BatchRandIntensityd(prob=0.5)]
    )


def assert_equal_epochs(one, other):
    one, other = list(one), list(other)
    assert len(one) == len(other)
    for a, b in zip(one, other):
        for key in ("image", "label", "rater_valid"):
            assert a[key].device == b[key].device and a[key].dtype == b[key].dtype and torch.equal(a[key], b[key])


# ---------------------------------------------------------------------------------------------- the same batches


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("image_dtype", ["int16", "float32"])
@pytest.mark.parametrize("world_size", [1, 5])  # of 12 patches
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("even_divisible", [False, True])
def test_streamed_batches_are_the_resident_ones(
    tmp_path, device, image_dtype, world_size, shuffle, drop_last, even_divisible
):
    data = load_dataset(write_dataset(tmp_path / "set", image_dtype))
    for rank in range(world_size):
        resident, streamed = (
            DeviceLoader(
                data,
                "training",
                2,
                device,
                transform=augmentation(),
                seed=3,
                rank=rank,
                world_size=world_size,
                memory_budget=budget,
                shuffle=shuffle,
                drop_last=drop_last,
                even_divisible=even_divisible,
            )
            for budget in (1, 0)
        )
        assert (resident.streaming, streamed.streaming) == (False, True) and len(resident) == len(streamed)
        for _ in range(3):
            assert_equal_epochs(resident, streamed)
        for each in (resident, streamed):
            each.set_epoch(7)
        assert_equal_epochs(resident, streamed)
        resident.set_epoch(1)
        next(iter(streamed))  # epoch 8, broken off
        streamed.set_epoch(1)
        assert_equal_epochs(resident, streamed)


def test_each_streamed_batch_is_the_consumers_own(dataset):
    streamed = DeviceLoader(dataset, "training", 4, memory_budget=0)
    for batch in streamed:
        for value in batch.values():
            value.zero_()
    assert_equal_epochs(DeviceLoader(dataset, "training", 4), streamed)


def test_iterators_one_after_the_other_and_side_by_side(dataset):
    streamed, resident = (
        DeviceLoader(dataset, "training", 2, shuffle=True, memory_budget=budget) for budget in (0, None)
    )
    epochs = [list(resident) for _ in range(4)]
    for epoch in epochs[:2]:
        assert_equal_epochs(epoch, streamed)
    both = list(zip(streamed, streamed))
    assert_equal_epochs(epochs[2], [one for one, _ in both])
    assert_equal_epochs(epochs[3], [other for _, other in both])


def test_a_streaming_loader_can_be_pickled_while_it_is_read(dataset):
    streamed = DeviceLoader(dataset, "training", 2, shuffle=True, memory_budget=0)
    iterator = iter(streamed)
    next(iterator)
    copy = pickle.loads(pickle.dumps(streamed))
    assert copy.streaming and not copy._resident
    assert_equal_epochs(streamed, copy)
    iterator.close()


# ---------------------------------------------------------------------------------------------- what decides


def test_the_budget_decides_and_the_log_says_so(dataset, caplog):
    patch = 8 * 8 * 2 + 3 * 8 * 8 + 3  # image, labels, rater_valid
    size = patch * len(dataset.indices("training")) / 1e9
    with caplog.at_level(logging.INFO, "aleatoric.data.loading.loader"):
        assert not DeviceLoader(dataset, "training", 4, memory_budget=size).streaming
        assert DeviceLoader(dataset, "training", 4, memory_budget=0.999 * size).streaming
    lies, streams = (record.getMessage() for record in caplog.records)
    start = f"section 'training' of {dataset.root} needs {size:.3g} GB, the memory budget on cpu is"
    assert lies == f"{start} {size:.3g} GB: it lies whole on the device."
    assert streams == f"{start} {0.999 * size:.3g} GB: it is read from the disk batch by batch."
    for wrong in (-1, float("nan")):
        with pytest.raises(InputError, match=f"memory budget of {wrong} GB found, 0 or more expected"):
            DeviceLoader(dataset, "training", 4, memory_budget=wrong)


def test_by_default_half_of_the_available_memory_shared_by_this_machines_processes(dataset, monkeypatch):
    size = DeviceLoader(dataset, "training", 4)._size()
    for available, processes, streams in [(2 * size, 1, False), (2 * size - 2, 1, True), (2 * size, 2, True)]:
        monkeypatch.setattr(loader, "available_memory", lambda available=available: available)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert DeviceLoader(dataset, "training", 4).streaming is streams


# ---------------------------------------------------------------------------------------------- the thread


class Watched:
    """An array that notes which rows were read, and fails or waits where it is told to."""

    def __init__(self, rows=40, fails_at=None):
        self.shape, self.dtype = (rows, 2), np.dtype(np.int16)
        self.read = []
        self.fails_at = fails_at
        self.threads = set()

    def take(self, rows, axis, out, mode):
        self.threads.add(threading.current_thread())
        if self.fails_at in rows:
            raise OSError("the disk is gone")
        self.read.extend(rows.tolist())
        out[:] = rows[:, None]


def batches_of(count, size=2):
    return [np.arange(size * i, size * (i + 1)) for i in range(count)]


def eventually(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def test_reading_runs_ahead_of_the_consumer_but_not_far():
    array = Watched()
    iterator = read_ahead({"image": array}, batches_of(20), CPU)
    assert not array.read  # nothing before it is asked for
    for taken in range(1, 4):
        next(iterator)
        # while the consumer is busy, and asks for nothing, the next batches are read; no more than these
        ahead = 2 * (taken + READ_AHEAD)
        assert eventually(lambda ahead=ahead: len(array.read) == ahead), array.read
        time.sleep(0.05)
        assert len(array.read) == ahead
    assert threading.current_thread() not in array.threads and len(array.threads) == 1
    iterator.close()


def test_an_error_of_the_thread_reaches_the_consumer_in_its_turn():
    iterator = read_ahead({"image": Watched(fails_at=5)}, batches_of(20), CPU)
    assert [next(iterator)["image"][0, 0].item() for _ in range(2)] == [0, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(iterator)
    assert not reading_threads()


def test_a_consumer_that_stops_leaves_no_thread(dataset):
    streamed = DeviceLoader(dataset, "training", 1, memory_budget=0)
    for _ in streamed:
        assert reading_threads()
        break
    assert not reading_threads()

    with pytest.raises(ZeroDivisionError):
        for _ in streamed:
            1 / 0  # noqa: B018
    assert not reading_threads()

    def broken(batch):
        raise ZeroDivisionError

    iterator = iter(DeviceLoader(dataset, "training", 1, transform=broken, memory_budget=0))
    with pytest.raises(ZeroDivisionError):
        next(iterator)
    assert not reading_threads()


def test_the_last_batch_ends_the_thread_without_a_further_question(dataset):
    # An engine takes len(loader) batches and keeps the iterator.
    streamed = DeviceLoader(dataset, "training", 1, memory_budget=0)
    iterator = iter(streamed)
    for _ in range(len(streamed)):
        next(iterator)
    assert eventually(lambda: not reading_threads())
    with pytest.raises(StopIteration):
        next(iterator)


def test_on_a_gpu_the_consumers_stream_waits_for_the_copies_and_the_host_for_nothing(monkeypatch):
    # The calls of the real thing, where there is no GPU: streams are strings, copies stay on the CPU.
    calls = []

    class Stream:
        def __init__(self, device):
            self.device = CPU

        def record_event(self):
            calls.append("copied")
            return f"event {calls.count('copied')}"

        def wait_event(self, event):
            assert threading.current_thread() is threading.main_thread()
            calls.append(f"wait for {event}")

    consumer = Stream(None)
    current = threading.local()

    @contextlib.contextmanager
    def stream(side):
        current.stream = side
        yield
        del current.stream

    empty, to = torch.empty, torch.Tensor.to

    def pinned(*args, pin_memory, **kwargs):
        assert pin_memory and current.stream  # pinned where the copy's device is the current one
        return empty(*args, **kwargs)

    def copy(tensor, device, non_blocking=False):
        assert non_blocking and current.stream
        return to(tensor, device).clone()

    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.Tensor, "to", copy)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda tensor, s: calls.append("used by" if s is consumer else "?")
    )
    for name, value in {"Stream": Stream, "stream": stream, "current_stream": lambda device: consumer}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    arrays = {"image": np.arange(12).reshape(6, 2), "label": np.arange(6)}
    batches = read_ahead(arrays, batches_of(3), torch.device("cuda"))
    for number, batch in enumerate(batches, 1):
        assert batch["label"].tolist() == [2 * number - 2, 2 * number - 1]
        handed = [call for call in calls if call != "copied"]
        assert handed[-3:] == [f"wait for event {number}", "used by", "used by"] and len(handed) == 3 * number
    assert calls.count("copied") == 3


def test_monai_trainer_sees_the_same_epochs(dataset):
    def losses(budget, stop_after=None):
        torch.manual_seed(0)
        ours = DeviceLoader(
            dataset, "training", 2, transform=augmentation(), shuffle=True, seed=0, memory_budget=budget
        )
        network = torch.nn.Conv2d(1, 3, 1)
        seen = []

        def loss(output, label):
            seen.append(float(label.sum()) + float(output.detach().sum()))
            return torch.nn.functional.binary_cross_entropy_with_logits(output, label.float())

        engine = SupervisedTrainer(
            device=CPU,
            max_epochs=3,
            train_data_loader=ours,
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
            loss_function=loss,
            train_handlers=[EpochSetter(ours)],
            decollate=False,
        )
        if stop_after:
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=stop_after), lambda e: e.terminate())
        engine.run()
        return seen

    whole = losses(1)
    assert losses(0) == whole and len(set(whole)) == 18
    assert eventually(lambda: not reading_threads())
    assert losses(0, stop_after=8) == whole[:8]
    gc.collect()  # the engine, in cycles with its handlers, held the iterator


# ---------------------------------------------------------------------------------------------- larger than memory

LIMITED = """
import resource, sys
import torch
from aleatoric.data import DeviceLoader, load_dataset
from aleatoric.errors import InputError

torch.set_num_threads(1)
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[2]),) * 2)
dataset = load_dataset(sys.argv[1])  # hashes and values checked
try:
    DeviceLoader(dataset, "training", 1, memory_budget=1e6)
except InputError as error:
    print(error)
streamed = DeviceLoader(dataset, "training", 1, shuffle=True, memory_budget=0)
print(sum(len(batch["image"]) for batch in streamed), len(streamed.indices))
kept = iter(streamed)
next(kept)  # the program must end although nobody closes this iterator
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on anonymous memory is Linux's")
def test_a_set_larger_than_memory_goes_through_an_epoch(tmp_path):
    folder = write_dataset(tmp_path / "set", "float32")
    count = 24
    # The same cases with an image of 8 MB and labels of 3 x 2 MB each, of zeros that take no space on the disk.
    info = json.loads((folder / "dataset.json").read_text())
    info["patch_size"] = [2048, 1024]
    for name, channels, dtype in (("images.npy", 1, np.float32), ("labels.npy", 3, np.uint8)):
        shape = (count, channels, 2048, 1024)
        np.lib.format.open_memmap(folder / name, mode="w+", dtype=dtype, shape=shape).flush()
        info["sha256"][name] = hashlib.sha256(np.memmap(folder / name, np.uint8, "r")).hexdigest()
    (folder / "dataset.json").write_text(json.dumps(info))

    limit = 120 << 20
    assert (
        min(14 * 2**20 * len(load_dataset(folder).indices("training")), (folder / "images.npy").stat().st_size) > limit
    )
    command = [sys.executable, "-c", LIMITED, str(folder), str(limit)]
    # The Makefile tells malloc to keep what is freed, which is fast and says nothing about what is needed. Left alone,
    # malloc takes arrays of this size from its heaps after the first was freed, and the threads' timing decides how
    # these fragment; with a fixed threshold each array is a mapping of its own, gone when it is freed.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    sentence, epoch = done.stdout.splitlines()
    assert f"section 'training' of {folder} needs" in sentence
    assert sentence.endswith("give a memory_budget below that (0 reads it from the disk batch by batch).")
    seen, patches = map(int, epoch.split())
    assert seen == patches >= 12
