"""Handlers for MONAI's stock trainer and evaluator. None of them waits for the device at every step."""

from __future__ import annotations

import json
import logging
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.engines import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver, StatsHandler
from monai.utils.enums import CommonKeys
from torch import Tensor, nn
from tqdm.auto import tqdm

from .errors import InputError, NotFiniteError, input_error_in
from .files import write_atomically

__all__ = [
    "AtomicCheckpointSaver",
    "BestSoFar",
    "EarlyStopping",
    "EpochSetter",
    "GradientClipper",
    "LossTermLogger",
    "ModelSettings",
    "SettingsCheckpointLoader",
    "StatsLogger",
    "latest_checkpoint",
]

logger = logging.getLogger(__name__)


class LossTermLogger:
    """Shows and keeps every term of the objective, and stops the run at the first value that is not finite.

    It listens to the terms' modules through forward hooks, so nothing is computed twice, and sums them on the device.
    The host reads them every ``interval`` steps for the progress bar, and at the end of an epoch, when their means
    become ``engine.state.metrics`` (where TensorBoard and MLflow handlers find them). Attach it before checkpoint
    savers, so that a model that is not finite is never saved.

    Args:
        loss: has ``named_terms()``: name -> module whose output is the term's value per image.
        interval: steps between two looks.
        progress: show a progress bar.
        prefix: put before the names in ``engine.state.metrics``.

    Raises:
        NotFiniteError: at most ``interval`` steps after a term became NaN or infinite; names both.
    """

    def __init__(self, loss: nn.Module, interval: int = 10, progress: bool = True, prefix: str = "train_") -> None:
        self.terms: dict[str, nn.Module] = loss.named_terms()  # type: ignore[operator]
        self.interval = interval
        self.progress = progress
        self.prefix = prefix
        self._names = [*self.terms, "loss"]
        self._latest: dict[str, Tensor] = {}
        self._reset()
        self._bar: Any = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        for name, module in self.terms.items():
            module.register_forward_hook(self._listener(name))
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._close)

    def _listener(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, value: Tensor) -> None:
            if torch.is_grad_enabled():  # a validation between two steps is not the trainer's
                self._latest[name] = value.detach().mean()

        return hook

    def _reset(self) -> None:
        self._sum: Tensor | None = None
        self._bad: Tensor | None = None
        self._count = 0

    def _start(self, engine: Engine) -> None:
        self._reset()
        if self.progress and engine.state.rank == 0:
            self._bar = tqdm(
                total=engine.state.epoch_length,
                desc=f"epoch {engine.state.epoch}/{engine.state.max_epochs}",
                unit="step",
                dynamic_ncols=True,
                leave=engine.state.epoch == engine.state.max_epochs,
            )

    def _step(self, engine: Engine) -> None:
        loss = engine.state.output[CommonKeys.LOSS].detach()  # type: ignore[index,call-overload]
        values = torch.stack([*(self._latest[name] for name in self.terms), loss]).float()
        iteration = torch.full_like(values, float(engine.state.iteration))
        if self._sum is None or self._bad is None:
            self._sum, self._bad = torch.zeros_like(values), torch.zeros_like(values)
        self._sum = self._sum + values
        # the step at which each term first went wrong, kept on the device until the next look
        self._bad = torch.where((self._bad == 0) & ~torch.isfinite(values), iteration, self._bad)
        self._count += 1
        if self._count % self.interval == 0 or self._count == engine.state.epoch_length:
            self._check()
            if self._bar is not None:
                self._bar.set_postfix({n: f"{v:.4g}" for n, v in zip(self._names, values.tolist())}, refresh=False)
        if self._bar is not None:
            self._bar.update()
        # MONAI's `--tracking mlflow` looks for the loss in a list of outputs, as an engine that decollates leaves it
        engine.state.output = [engine.state.output]  # type: ignore[assignment]

    def _check(self) -> None:
        if self._bad is None:
            return
        bad = {name: int(step) for name, step in zip(self._names, self._bad.tolist()) if step > 0}
        if bad:
            first = min(bad, key=lambda name: bad[name])
            raise NotFiniteError(
                f"the loss term '{first}' was not finite at iteration {bad[first]}: the training stopped; "
                f"lower the learning rate or look at the images of that batch."
            )

    def _finish(self, engine: Engine) -> None:
        self._check()
        self._close(engine)
        if self._sum is not None:
            for name, value in zip(self._names, (self._sum / self._count).tolist()):
                engine.state.metrics[self.prefix + name] = value

    def _close(self, engine: Engine, error: BaseException | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if error is not None:
            raise error


class StatsLogger(StatsHandler):
    """MONAI's ``StatsHandler``, which logs no stack trace where the input is at fault."""

    def exception_raised(self, engine: Engine, e: Exception) -> None:
        """Log and raise again."""
        if input_error_in(e) is not None:
            raise e
        super().exception_raised(engine, e)


class GradientClipper:
    """Scale the gradient to at most ``max_norm`` before the optimiser's step (SPU-Net: 1)."""

    def __init__(self, network: nn.Module, max_norm: float = 1.0) -> None:
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Clip in place, without reading the norm back."""
        nn.utils.clip_grad_norm_(self.parameters, self.max_norm)


class EpochSetter:
    """Make order, augmentation and noise of an epoch follow from (seed, epoch) alone, whatever was drawn before it.

    So a resumed run goes on as the undisturbed one would have done.

    Args:
        loader: told the epoch if it has ``set_epoch`` (:class:`~aleatoric.data.DeviceLoader`); of another, e.g. MONAI's
            ``DataLoader``, the random transforms of its data set are seeded.
        seed: of the noise; every rank draws its own.
    """

    def __init__(self, loader: Any, seed: int = 0) -> None:
        self.loader = loader
        self.seed = int(seed)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Begin the epoch, counted from 0."""
        epoch = engine.state.epoch - 1
        numbers = (self.seed, epoch, int(getattr(engine.state, "rank", 0)))
        seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])  # neighbours give unrelated seeds
        torch.manual_seed(seed)  # of all devices; a DataLoader's sampler draws its order from it too
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(epoch)
        else:
            set_rnd(getattr(self.loader, "dataset", None), seed)


class AtomicCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver`` whose files are replaced whole: a kill leaves the old one or the new one.

    The best model is the best of the engine's ``best_metric``, which :class:`BestSoFar` carries over a resume, where
    MONAI's saver would take the first one that it meets.

    Args:
        save_engine: keep the engine's own state too, as "trainer" (a config cannot name the engine in its handlers'
            arguments, which would be a circle).
        settings: written beside the best model as JSON. The file itself then is a bare state dict (with one entry in
            ``save_dict``), because MONAI's export and ``load`` silently take nothing from any other.
        *args, **kwargs: as MONAI's.
    """

    def __init__(
        self, *args: Any, save_engine: bool = False, settings: ModelSettings | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.save_engine = save_engine
        self.settings = settings
        for checkpoint in (self._final_checkpoint, self._key_metric_checkpoint, self._interval_checkpoint):
            if checkpoint is not None:
                saver: Any = checkpoint.save_handler
                saver._atomic = True
                if saver.filename is not None:  # the new file replaces the old one: there is nothing to remove first
                    saver.remove = lambda filename: None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer or evaluator."""
        if self.save_engine:
            self.save_dict["trainer"] = engine
        super().attach(engine)
        if self._interval_checkpoint is not None:
            engine.add_event_handler(Events.STARTED, self._warn)

    def _warn(self, engine: Engine) -> None:
        earlier = sorted(path.name for path in Path(self.save_dir).glob("*.pt"))
        if engine.state.epoch == 0 and earlier:
            logger.warning(
                "%s holds %s of an earlier training, which this one will replace: stop it and give --ckpt_dir (and "
                "--output_dir) to keep them, or --resume True to go on with them.",
                self.save_dir,
                ", ".join(earlier),
            )

    def metrics_completed(self, engine: Engine) -> None:
        """Save where this epoch's key metric is the best so far."""
        if engine.state.best_metric_epoch == engine.state.epoch:
            super().metrics_completed(engine)
            if self.settings is not None and self._key_metric_checkpoint is not None:
                saver: Any = self._key_metric_checkpoint.save_handler
                beside = _settings_beside(Path(self.save_dir) / saver.filename)
                write_atomically(beside, json.dumps(self.settings.state_dict(), indent=2) + "\n")


class BestSoFar:
    """The best validation figure and its epoch, to be kept in the trainer's checkpoints.

    Args:
        evaluator: the validation engine, whose ``state.best_metric`` and ``state.best_metric_epoch`` they are.
    """

    def __init__(self, evaluator: Engine) -> None:
        self.evaluator = evaluator

    def state_dict(self) -> dict[str, Any]:
        """The figure and its epoch."""
        state = self.evaluator.state
        return {"metric": float(state.best_metric), "epoch": int(state.best_metric_epoch)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from them."""
        self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch = state["metric"], state["epoch"]


class EarlyStopping:
    """Stop the trainer it is attached to when the key metric has not improved for ``patience`` validations.

    It counts from the evaluator's ``best_metric_epoch`` (MONAI's ``EarlyStopHandler`` has a count of its own, which a
    resumed run would begin anew).

    Args:
        evaluator: the validation engine.
        patience: validations without an improvement.
        interval: epochs between two validations.
    """

    def __init__(self, evaluator: Engine, patience: int, interval: int = 1) -> None:
        self.evaluator = evaluator
        self.patience = patience
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Register with a trainer, behind its ``ValidationHandler``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self)

    def __call__(self, engine: Engine) -> None:
        """Stop the trainer if it is time."""
        state = self.evaluator.state
        if state.best_metric_epoch > 0 and state.epoch - state.best_metric_epoch >= self.patience * self.interval:
            engine.logger.info(f"no better {state.key_metric_name} for {self.patience} validations: the training stops")
            engine.terminate()


class ModelSettings:
    """The choices that a checkpoint only fits with; saved beside the weights and compared before they are loaded.

    Args:
        **settings: plain values: numbers, strings, lists of them; an empty dict says nothing and is not compared.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = {name: _plain(value) for name, value in settings.items()}

    def state_dict(self) -> dict[str, Any]:
        """The settings."""
        return dict(self.settings)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare, load nothing. Raises InputError where a setting differs."""
        wrong = [
            f"{name} {state[name]} (here {value})"
            for name, value in self.settings.items()
            if name in state and value != {} and _plain(state[name]) != value
        ]
        if wrong:
            raise InputError(
                f"the checkpoint was trained with {', '.join(wrong)}: give the same settings as in training (and the "
                f"overlay of its data set), or a checkpoint of this model."
            )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value


def _settings_beside(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".json")


class SettingsCheckpointLoader(CheckpointLoader):
    """MONAI's ``CheckpointLoader`` with one clear sentence where the file is absent or of another model.

    A :class:`ModelSettings` in ``load_dict`` is compared before any weight is loaded: with those in the checkpoint, or
    with the JSON file beside it. Without either, or from a bare state dict, it loads as with MONAI's.

    Args:
        load_engine: go on with the state of the engine that was saved as "trainer".
        *args, **kwargs: as MONAI's.
    """

    load_dict: dict[str, Any]

    def __init__(self, *args: Any, load_engine: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.load_engine = load_engine

    def __call__(self, engine: Engine) -> None:
        """Load. Raises InputError."""
        path = Path(self.load_path)
        if not path.is_file():
            raise InputError(f"there is no checkpoint {path}: train first (run training), or give ckpt_path.")
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0].partition(". ")[0]
            raise InputError(
                f"{path} cannot be read ({reason}), a checkpoint of this bundle expected: copy it again, or train."
            ) from error
        settings = [key for key, value in self.load_dict.items() if isinstance(value, ModelSettings)]
        wanted = self.load_dict
        for key in settings:
            if key in stored:
                wanted[key].load_state_dict(stored[key])
            elif _settings_beside(path).is_file():
                wanted[key].load_state_dict(json.loads(_settings_beside(path).read_text(encoding="utf-8")))
        try:
            self.load_dict = {key: value for key, value in wanted.items() if key not in settings}
            if self.load_engine:
                self.load_dict["trainer"] = engine
                self._check_epochs(path, stored.get("trainer", {}), engine)
            absent = [key for key in self.load_dict if key not in stored]
            if absent and len(self.load_dict) > 1:  # else a bare state dict
                raise InputError(
                    f"the checkpoint {path} lacks {', '.join(absent)}: give one that this version's training wrote."
                )
            super().__call__(engine)
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line or "key(s)" in line]
            raise InputError(
                f"the checkpoint {path} is of another model ({lines[0] if lines else error}): "
                f"give the settings that it was trained with."
            ) from error
        finally:
            self.load_dict = wanted

    @staticmethod
    def _check_epochs(path: Path, state: Mapping[str, Any], engine: Engine) -> None:
        epochs = state.get("iteration", 0) // (state.get("epoch_length") or 1)
        if engine.state.max_epochs is not None and epochs > engine.state.max_epochs:
            raise InputError(
                f"{path} is of epoch {epochs}, and max_epochs is {engine.state.max_epochs}: there is nothing left to "
                "train, give a larger --max_epochs."
            )


def latest_checkpoint(folder: str) -> str:
    """The checkpoint to resume from: the highest epoch in ``folder``. Raises InputError where there is none."""
    found = {
        int(match.group(1)): path
        for path in Path(folder).glob("*epoch=*.pt")
        if (match := re.search(r"epoch=(\d+)", path.name))
    }
    if not found:
        raise InputError(f"there is no checkpoint in {folder} to resume from: run training without resume first.")
    return str(found[max(found)])
