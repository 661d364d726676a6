"""From the prepared data set to batches: on the device, or one case at a time for MONAI's chains."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch import Tensor

from ...errors import InputError
from ..prepared.reading import PreparedDataset
from .memory import available_memory
from .streaming import read_ahead, read_rows

__all__ = ["DeviceLoader", "PreparedCases", "mix"]

_COPY_STEP = 1 << 25  # bytes per host-to-device copy: bounds the host's memory

logger = logging.getLogger(__name__)


class DeviceLoader:
    """Hands out device batches of one section of a prepared data set, which lies on the device if it fits.

    A section that is larger than the memory budget is streamed: a thread reads the next batches from the data set's
    memory maps while the device works on this one. The batches, their order and their augmentation are the same, bit
    for bit. Which of the two happens is logged.

    A batch is a dict of ``image`` (B, C, *S) float32 in [0, 1] (the data set's intensity window, clamped), ``label``
    (B, R, *S) uint8 and ``rater_valid`` (B, R) bool. No batch makes the host wait for the device.

    Epochs: order and augmentation depend on (seed, epoch) alone, so a resumed training sees what an undisturbed one
    would have seen. The first iteration is epoch 0 and each new one is the next; :meth:`set_epoch` says otherwise.
    In a MONAI trainer :class:`~aleatoric.handlers.EpochSetter` lets the trainer's own epoch count, also after a
    checkpoint was loaded.

    Args:
        dataset: what :func:`~aleatoric.data.load_dataset` returned.
        section: ``"training"``, ``"validation"`` or ``"testing"``.
        batch_size: B, per rank.
        device: where the arrays live and the batches are made.
        fold: cross-validation fold.
        transform: called with each batch dict; MONAI's ``Compose`` of batched transforms. If it is ``Randomizable``
            it is seeded from (seed, epoch, rank) at the start of each epoch.
        shuffle: permute the patches in each epoch.
        seed: of order and augmentation.
        drop_last: leave out the last batch if it is not full.
        num_workers: ignored; there is no worker. For configs written for a ``DataLoader``.
        rank: of this process; by default that of ``torch.distributed`` where it is initialised, else 0.
        world_size: number of processes among which the patches are dealt; default as for ``rank``.
        even_divisible: with several ranks, repeat a few patches so that all ranks get the same number of batches
            (else DDP would wait for ever). ``False`` is for evaluation, where a repeated patch would count twice.
        keep_raters: the raters who count, from 0; the others are handed out as missing. SSN's Table 1 compares training
            with one set of annotations and with all. None: all.
        memory_budget: GB (1e9 bytes) that the section may take on the device; 0 always streams. By default 80% of
            what is free on a CUDA device, elsewhere 50% of the memory that is available, shared by the processes that
            ``torchrun`` started on this machine.

    Attributes:
        streaming: whether the section is streamed.

    Raises:
        InputError: the section is empty, holds less than a batch with ``drop_last``, or is within the memory budget
            but not within the memory.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        section: str,
        batch_size: int,
        device: torch.device | str = "cpu",
        fold: int = 0,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        num_workers: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        even_divisible: bool = True,
        memory_budget: float | None = None,
        keep_raters: Sequence[int] | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch size {batch_size} found, at least 1 expected; correct it.")
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = rank if rank is not None else torch.distributed.get_rank() if running else 0
        self.world_size = world_size if world_size is not None else torch.distributed.get_world_size() if running else 1
        if not 0 <= self.rank < self.world_size:
            raise InputError(f"rank {self.rank} found, 0 to {self.world_size - 1} expected; correct it.")
        self.dataset = dataset
        self.section = section
        self.batch_size = int(batch_size)
        self.device = torch.device(device)
        self.transform = transform
        self.shuffle = shuffle
        self.seed = int(seed)
        self.drop_last = drop_last
        self.even_divisible = even_divisible
        self.epoch = 0
        raters = int(dataset.info["raters"])
        if keep_raters is not None and not (len(keep_raters) and all(0 <= r < raters for r in keep_raters)):
            raise InputError(
                f"keep_raters {list(keep_raters)} found, some of 0 to {raters - 1} expected, the raters of "
                f"{dataset.root}; correct it."
            )
        kept = range(raters) if keep_raters is None else keep_raters
        self._counts = torch.tensor([rater in kept for rater in range(raters)], device=self.device)
        self.indices = dataset.indices(section, fold)
        if not len(self.indices):
            raise InputError(
                f"no patch found in section {section!r} of {dataset.root}, at least one expected; "
                "prepare a data set of more patients."
            )
        if not len(self):
            raise InputError(
                f"{self._count()} patches found in section {section!r} of {dataset.root}, a batch of "
                f"{self.batch_size} for each of {self.world_size} processes expected; take smaller batches."
            )
        size, budget = self._size(), self._budget(memory_budget)
        self.streaming = size > budget
        logger.info(
            "section %r of %s needs %.3g GB, the memory budget on %s is %.3g GB: it %s.",
            section,
            dataset.root,
            size / 1e9,
            self.device,
            budget / 1e9,
            "is read from the disk batch by batch" if self.streaming else "lies whole on the device",
        )
        # name -> (n, ...) as stored
        self._resident = None if self.streaming else self._load()

    def __len__(self) -> int:
        """Number of batches of this rank in an epoch."""
        share = self._share()
        return share // self.batch_size if self.drop_last else -(-share // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch (from 0); the one after it is the next again."""
        self.epoch = int(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # A generator: the epoch is read with the first batch, so a set_epoch after iter() still counts.
        epoch, self.epoch = self.epoch, self.epoch + 1
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=self._derived_seed(epoch))
        low, high = self.dataset.intensity_window
        with closing(self._stored_batches(epoch)) as batches:
            for batch in batches:
                image = batch["image"].float()
                batch["rater_valid"] &= self._counts
                batch["image"] = image.sub_(low).mul_(1.0 / (high - low)).clamp_(0.0, 1.0)
                yield batch if self.transform is None else self.transform(batch)

    def _stored_batches(self, epoch: int) -> Generator[dict[str, Tensor], None, None]:
        """Batches as they are stored, on the device, in new memory."""
        order = self._order(epoch)
        if self._resident is None:
            parts = order.split(self.batch_size)[: len(self)]
            yield from read_ahead(self._arrays(), (self.indices[part.numpy()] for part in parts), self.device)
        else:
            for part in order.to(self.device).split(self.batch_size)[: len(self)]:
                yield {name: values.index_select(0, part) for name, values in self._resident.items()}

    def _count(self) -> int:
        """What an epoch of all ranks has."""
        return len(self.indices)

    def _share(self) -> int:
        count = self._count()
        if self.even_divisible:
            return -(-count // self.world_size)
        return len(range(self.rank, count, self.world_size))

    def _order(self, epoch: int) -> Tensor:
        count = self._count()
        if self.shuffle:
            # On the host, so that CPU and GPU runs see the same order; the same on every rank.
            generator = torch.Generator().manual_seed(mix(self.seed, epoch))
            order = torch.randperm(count, generator=generator)
        else:
            order = torch.arange(count)
        if self.even_divisible:
            order = order[torch.arange(self._share() * self.world_size) % count]
        return order[self.rank :: self.world_size]

    def _derived_seed(self, epoch: int) -> int:
        return mix(self.seed, epoch, self.rank) % 2**32

    def _arrays(self) -> dict[str, np.ndarray]:
        # Plain arrays over the same maps: rows of an `np.memmap` take longer.
        stored = {"image": self.dataset.images, "label": self.dataset.labels, "rater_valid": self.dataset.rater_valid}
        return {name: np.asarray(array) for name, array in stored.items()}

    def _size(self) -> int:
        return len(self.indices) * sum(math.prod(a.shape[1:]) * a.dtype.itemsize for a in self._arrays().values())

    def _budget(self, gigabytes: float | None) -> float:
        """Bytes that the section may take on the device."""
        if gigabytes is not None:
            if not gigabytes >= 0:  # NaN too
                raise InputError(f"a memory budget of {gigabytes} GB found, 0 or more expected; correct it.")
            return gigabytes * 1e9
        if self.device.type == "cuda":
            return 0.8 * torch.cuda.mem_get_info(self.device)[0]
        return 0.5 * available_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    def _load(self) -> dict[str, Tensor]:
        try:
            return {name: self._to_device(array) for name, array in self._arrays().items()}
        except (MemoryError, RuntimeError) as error:
            # On the CPU torch has no exception of its own for this, only the name of its allocator in the message.
            full = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "CPUAllocator" in str(error)
            if not full:
                raise
            raise InputError(
                f"section {self.section!r} of {self.dataset.root} needs {self._size() / 1e9:.3g} GB, more than is free "
                f"on {self.device}; give a memory_budget below that (0 reads it from the disk batch by batch)."
            ) from error

    def _to_device(self, array: np.ndarray) -> Tensor:
        step = max(1, _COPY_STEP // max(1, math.prod(array.shape[1:]) * array.dtype.itemsize))
        dtype = read_rows(array, self.indices[:0]).dtype
        target = torch.empty((len(self.indices), *array.shape[1:]), dtype=dtype, device=self.device)
        for start in range(0, len(self.indices), step):
            block = read_rows(array, self.indices[start : start + step])
            target[start : start + len(block)].copy_(block)
        return target


class PreparedCases(torch.utils.data.Dataset):
    """One section of a prepared data set, case by case: the data of a ``monai.data.Dataset`` with its own transform.

    An item is a dict of ``image`` (C, *S) float32 in [0, 1], ``label`` (R, *S) uint8 and ``rater_valid`` (R,) bool:
    channel first, as MONAI's per-sample transforms expect. MONAI's ``RandAffined`` returns labels as float32; a
    ``CastToTyped(keys="label", dtype=torch.uint8)`` behind it makes them classes again.

    Args:
        dataset: what :func:`~aleatoric.data.load_dataset` returned.
        section: ``"training"``, ``"validation"`` or ``"testing"``.
        fold: cross-validation fold.
        transform: called with each item.

    Raises:
        InputError: the section is empty.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        section: str,
        fold: int = 0,
        transform: Callable[[Mapping[str, Any]], Any] | None = None,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.indices = dataset.indices(section, fold)
        if not len(self.indices):
            raise InputError(
                f"no patch found in section {section!r} of {dataset.root}, at least one expected; "
                "prepare a data set of more patients."
            )

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        position = self.indices[index]
        low, high = self.dataset.intensity_window
        image = torch.from_numpy(np.array(self.dataset.images[position], dtype=np.float32))
        item = {
            "image": image.sub_(low).mul_(1.0 / (high - low)).clamp_(0.0, 1.0),
            "label": torch.from_numpy(np.array(self.dataset.labels[position])),
            "rater_valid": torch.from_numpy(np.array(self.dataset.rater_valid[position])),
        }
        return item if self.transform is None else self.transform(item)


def mix(*numbers: int) -> int:
    """One seed of several numbers; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1
