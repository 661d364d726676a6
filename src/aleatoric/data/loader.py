"""From the prepared data set to batches: whole sections on the device, or one case at a time for MONAI's chains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch import Tensor

from ..errors import InputError
from .prepared import PreparedDataset

__all__ = ["DeviceLoader", "PreparedCases"]

_COPY_STEP = 512  # patches per host-to-device copy: bounds the host's memory


class DeviceLoader:
    """Holds one section of a prepared data set on the device and hands out device batches.

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

    Raises:
        InputError: the section is empty, holds less than a batch with ``drop_last``, or does not fit on the device.
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
        self.indices = dataset.indices(section, fold)
        if not len(self.indices):
            raise InputError(
                f"no patch found in section {section!r} of {dataset.root}, at least one expected; "
                "prepare a data set of more patients."
            )
        if not len(self):
            raise InputError(
                f"{len(self.indices)} patches found in section {section!r} of {dataset.root}, a batch of "
                f"{self.batch_size} for each of {self.world_size} processes expected; take smaller batches."
            )
        self._check_memory()
        try:
            self._images = self._to_device(dataset.images)  # (n, C, *S) as stored
            self._labels = self._to_device(dataset.labels)  # (n, R, *S)
            self._rater_valid = self._to_device(dataset.rater_valid)  # (n, R)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise self._too_large() from error

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
        order = self._order(epoch)
        low, high = self.dataset.intensity_window
        for number in range(len(self)):
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
            image = self._images.index_select(0, chosen).float()
            batch: dict[str, Any] = {
                "image": image.sub_(low).mul_(1.0 / (high - low)).clamp_(0.0, 1.0),
                "label": self._labels.index_select(0, chosen),
                "rater_valid": self._rater_valid.index_select(0, chosen),
            }
            yield batch if self.transform is None else self.transform(batch)

    def _share(self) -> int:
        count = len(self.indices)
        if self.even_divisible:
            return -(-count // self.world_size)
        return len(range(self.rank, count, self.world_size))

    def _order(self, epoch: int) -> Tensor:
        count = len(self.indices)
        if self.shuffle:
            # On the host, so that CPU and GPU runs see the same order; the same on every rank.
            generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
            order = torch.randperm(count, generator=generator)
        else:
            order = torch.arange(count)
        if self.even_divisible:
            order = order[torch.arange(self._share() * self.world_size) % count]
        return order[self.rank :: self.world_size].to(self.device)

    def _derived_seed(self, epoch: int) -> int:
        return _mix(self.seed, epoch, self.rank) % 2**32

    def _to_device(self, array: np.ndarray) -> Tensor:
        shape = (len(self.indices), *array.shape[1:])
        target = torch.empty(shape, dtype=torch.from_numpy(np.empty(0, array.dtype)).dtype, device=self.device)
        for start in range(0, len(self.indices), _COPY_STEP):
            block = np.ascontiguousarray(array[self.indices[start : start + _COPY_STEP]])
            target[start : start + len(block)].copy_(torch.from_numpy(block))
        return target

    def _size(self) -> int:
        arrays = (self.dataset.images, self.dataset.labels, self.dataset.rater_valid)
        return len(self.indices) * sum(int(np.prod(a.shape[1:])) * a.dtype.itemsize for a in arrays)

    def _check_memory(self) -> None:
        if self.device.type == "cuda" and torch.cuda.mem_get_info(self.device)[0] < self._size():
            raise self._too_large()

    def _too_large(self) -> InputError:
        return InputError(
            f"section {self.section!r} of {self.dataset.root} needs {self._size() / 1e9:.2f} GB, more than is free on "
            f"{self.device}; use another device or prepare fewer patches."
        )


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


def _mix(*numbers: int) -> int:
    """One seed of several numbers; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1
