"""Handlers on MONAI's stock engines: they see every step, change what they say they change, and survive a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import CheckpointSaver
from torch.utils.data import DataLoader

from aleatoric.engines import PrepareMultiRaterBatch
from aleatoric.errors import InputError, NotFiniteError, input_error_in
from aleatoric.handlers import (
    AtomicCheckpointSaver,
    BestSoFar,
    EarlyStopping,
    EpochSetter,
    GradientClipper,
    LossTermLogger,
    ModelSettings,
    SettingsCheckpointLoader,
    StatsLogger,
    latest_checkpoint,
)
from aleatoric.losses import DivergenceTerm, KLDivergence, NegativeLogLikelihood, VariationalLoss
from models import probabilistic_unet


def batches(count=4, size=3):
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.rand(size, 1, 8, 8, generator=generator),
            "label": torch.randint(0, 2, (size, 2, 8, 8), generator=generator, dtype=torch.uint8),
            "rater_valid": torch.ones(size, 2, dtype=torch.bool),
        }
        for _ in range(count)
    ]


def objective() -> VariationalLoss:
    return VariationalLoss(NegativeLogLikelihood(), {"kl": DivergenceTerm(KLDivergence(), 2.0)})


def trainer(handlers=(), network=None, loss=None, loader=None, max_epochs=1, rate=1e-3):
    network = network or probabilistic_unet()
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=batches() if loader is None else loader,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=rate),
        loss_function=loss or objective(),
        prepare_batch=PrepareMultiRaterBatch(),
        train_handlers=list(handlers),
        decollate=False,
    )


class Spy:
    """Calls a function at an event."""

    def __init__(self, event, function):
        self.event, self.function = event, function

    def attach(self, engine):
        engine.add_event_handler(self.event, self.function)


# -- LossTermLogger ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [1, 3, 100])
def test_term_means_are_those_of_the_steps_and_nothing_is_computed_twice(interval):
    loss, seen, calls = objective(), [], []
    for name, module in loss.named_terms().items():
        module.register_forward_hook(lambda module, inputs, value, name=name: calls.append((name, value.mean().item())))
    watch = Spy(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output["loss"].item()))
    engine = trainer([watch, LossTermLogger(loss, interval=interval, progress=False)], loss=loss)
    engine.run()
    metrics = engine.state.metrics
    assert set(metrics) == {"train_loss", "train_likelihood", "train_kl"}
    assert len(calls) == 2 * len(seen) == 2 * 4  # one forward a term and step
    assert metrics["train_loss"] == pytest.approx(sum(seen) / 4)
    for name in ("likelihood", "kl"):
        assert metrics[f"train_{name}"] == pytest.approx(sum(v for n, v in calls if n == name) / 4)
    assert metrics["train_loss"] == pytest.approx(metrics["train_likelihood"] + 2 * metrics["train_kl"])


def test_a_validation_between_two_steps_does_not_count():
    image, label, _, kwargs = PrepareMultiRaterBatch()(batches()[0])
    means = []
    for validates in (False, True):
        loss, network = objective(), probabilistic_unet()

        @torch.no_grad()
        def validate(engine, loss=loss, network=network):
            with torch.random.fork_rng():
                loss(network(image + 100, **kwargs), label)

        torch.manual_seed(0)
        network.load_state_dict(probabilistic_unet().state_dict())
        # after the step's own forward, before the logger looks
        handlers = [Spy(Events.ITERATION_COMPLETED, validate)] if validates else []
        engine = trainer([*handlers, LossTermLogger(loss, progress=False)], loss=loss, network=network)
        engine.run()
        means.append(dict(engine.state.metrics))
    assert means[0] == means[1]


def test_progress_shows_every_term(capfd):
    loss = objective()
    trainer([LossTermLogger(loss, interval=1)], loss=loss, max_epochs=2).run()
    shown = capfd.readouterr().err
    assert "epoch 2/2" in shown and all(f"{name}=" in shown for name in ("likelihood", "kl", "loss"))


class Poisoned(KLDivergence):
    """Infinite from one step on."""

    def __init__(self, step):
        super().__init__()
        self.step, self.calls = step, 0

    def forward(self, output, label):
        self.calls += 1
        return super().forward(output, label) + (float("inf") if self.calls >= self.step else 0.0)


@pytest.mark.parametrize("interval", [1, 3, 100])
def test_a_term_that_is_not_finite_stops_the_run(interval, tmp_path, caplog):
    loss = VariationalLoss(NegativeLogLikelihood(), {"kl": DivergenceTerm(Poisoned(2))})
    network = probabilistic_unet()
    saver = AtomicCheckpointSaver(save_dir=str(tmp_path), save_dict={"model": network}, save_interval=1)
    handlers = [LossTermLogger(loss, interval=interval, progress=False), StatsLogger(iteration_log=False), saver]
    engine = trainer(handlers, loss=loss, network=network)
    with pytest.raises(NotFiniteError, match="loss term 'kl' was not finite at iteration 2") as caught:
        engine.run()
    assert isinstance(caught.value, FloatingPointError) and input_error_in(caught.value)
    assert engine.state.iteration <= min(2 + interval, 4)
    assert not list(tmp_path.glob("*.pt"))  # nothing of it is kept
    assert "Traceback" not in caplog.text


# -- EpochSetter, GradientClipper --------------------------------------------------------------------------------------


class Loader(list):
    epochs: list

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


def test_epochs_are_counted_from_zero_and_noise_follows_from_seed_and_epoch():
    def run(seed, disturb=0):
        loader, noise = Loader(batches(1)), []
        loader.epochs = []
        torch.rand(disturb)
        draw = Spy(Events.ITERATION_STARTED, lambda engine: noise.append(torch.rand(1).item()))
        trainer([EpochSetter(loader, seed), draw], loader=loader, max_epochs=3).run()
        return loader.epochs, noise

    epochs, noise = run(0)
    assert epochs == [0, 1, 2] and len(set(noise)) == 3
    assert run(0, disturb=5)[1] == noise
    assert not set(run(1)[1]) & set(noise)


def test_ranks_draw_different_noise():
    noise = []
    for rank in range(2):
        engine = trainer()
        engine.state.rank, engine.state.epoch = rank, 1
        EpochSetter(None)(engine)
        noise.append(torch.rand(1).item())
    assert noise[0] != noise[1]


def test_a_loader_without_epochs_has_its_transforms_seeded():
    from monai.data import Dataset
    from monai.transforms import RandGaussianNoised

    def run(disturb):
        data = Dataset(
            [{key: value[0] for key, value in b.items()} for b in batches(4)], RandGaussianNoised("image", 1.0)
        )
        loader = DataLoader(data, batch_size=2, shuffle=True)
        engine = trainer(loader=loader)
        for _ in range(disturb):
            next(iter(loader))
        engine.state.epoch = 3
        EpochSetter(loader, 0)(engine)
        return torch.cat([batch["image"] for batch in loader])

    torch.testing.assert_close(run(0), run(2), rtol=0, atol=0)


def test_gradients_are_clipped_between_backward_and_step():
    norms = []

    def norm(engine):
        norms.append(
            torch.cat([p.grad.flatten() for p in engine.network.parameters() if p.grad is not None]).norm().item()
        )

    network = probabilistic_unet()
    trainer([Spy(Events.ITERATION_COMPLETED, norm)], network=network).run()
    assert min(norms) > 0.5
    norms.clear()
    trainer([GradientClipper(network, 0.5), Spy(Events.ITERATION_COMPLETED, norm)], network=network).run()
    assert norms == pytest.approx([0.5] * 4, rel=1e-3)


# -- the best figure ---------------------------------------------------------------------------------------------------


def evaluator(figures, handlers=()):
    """An evaluator whose key metric is the next of ``figures`` at each epoch; lower is better."""
    from ignite.metrics import Metric

    class Next(Metric):
        def reset(self):
            pass

        def update(self, output):
            pass

        def compute(self):
            return figures[engine.state.epoch - 1]

    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{"image": torch.zeros(1, 1, 2, 2), "label": torch.zeros(1, 1, 2, 2)}],
        network=torch.nn.Identity(),
        key_val_metric={"val_loss": Next(output_transform=lambda output: (0, 0))},
        metric_cmp_fn=lambda current, best: current < best,
        val_handlers=list(handlers),
        decollate=False,
    )
    return engine


class State:
    """Something with a state that can be saved."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def best_saver(folder, state):
    return AtomicCheckpointSaver(
        save_dir=str(folder),
        save_dict={"state": state, "twin": state},
        save_key_metric=True,
        key_metric_negative_sign=True,
        key_metric_filename="model.pt",
    )


def test_the_best_model_is_kept_over_a_resume(tmp_path):
    figures = [3.0, 1.0, 2.0, 1.5, 0.5, 0.7]
    kept = {}

    def run(epochs, best=None):
        state = State()
        engine = evaluator(figures, [best_saver(tmp_path, state)])
        record = BestSoFar(engine)
        if best:
            record.load_state_dict(best)
        for epoch in epochs:
            state.value = epoch
            engine.run(epoch)
            kept[epoch] = torch.load(tmp_path / "model.pt", weights_only=True)["state"]["value"]
        return record.state_dict()

    best = run([1, 2])
    assert best == {"metric": 1.0, "epoch": 2}
    assert run([3, 4, 5, 6], best) == {"metric": 0.5, "epoch": 5}
    assert list(kept.values()) == [1, 2, 2, 2, 5, 5]


@pytest.mark.parametrize(("interval", "stop"), [(1, 4), (2, 8)])
def test_early_stopping_counts_validations_since_the_best(interval, stop):
    figures = [5.0, 4.0, 4.5, 4.0, 4.6, 4.6, 4.6, 4.6, 1.0, 1.0]  # a tie is no improvement
    validator = evaluator(figures)
    validate = Spy(Events.EPOCH_COMPLETED(every=interval), lambda engine: validator.run(engine.state.epoch))
    best = {1: 2, 2: 4}[interval]
    engine = trainer([validate, EarlyStopping(validator, 2, interval)], loader=batches(1), max_epochs=10)
    if interval == 2:
        figures[1] = 5.0  # the best is then that of epoch 4
    engine.run()
    assert (engine.state.epoch, validator.state.best_metric_epoch) == (stop, best)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_settings_are_compared_before_a_weight_is_loaded(tmp_path):
    path = tmp_path / "model.pt"
    network = probabilistic_unet()
    torch.save({"settings": ModelSettings(d=3, filters=(4, 8)).state_dict(), "model": network.state_dict()}, path)
    other = probabilistic_unet()
    before = {key: value.clone() for key, value in other.state_dict().items()}

    def load(settings, target=other, **load_dict):
        loader = SettingsCheckpointLoader(str(path), {"settings": settings, "model": target, **load_dict})
        loader(trainer(network=probabilistic_unet()))

    with pytest.raises(InputError, match=r"d 3 \(here 4\), filters \[4, 8\] \(here \[4\]\).*the same settings"):
        load(ModelSettings(d=4, filters=[4]))
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())
    load(ModelSettings(d=3, filters=[4, 8], new="what the file does not know"))
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in other.state_dict().items())
    with pytest.raises(InputError, match="is of another model .*size mismatch"):
        load(ModelSettings(d=3), probabilistic_unet(filters=(5, 8)))


def test_a_bare_state_dict_loads_and_a_missing_file_is_named(tmp_path):
    network, other = probabilistic_unet(), probabilistic_unet()
    torch.save(network.state_dict(), tmp_path / "bare.pt")
    load_dict = {"settings": ModelSettings(d=3), "model": other}
    SettingsCheckpointLoader(str(tmp_path / "bare.pt"), load_dict)(trainer())
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in other.state_dict().items())
    assert set(load_dict) == {"settings", "model"}
    with pytest.raises(InputError, match="there is no checkpoint .*none.pt: train first"):
        SettingsCheckpointLoader(str(tmp_path / "none.pt"), load_dict)(trainer())
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(InputError, match="torn.pt cannot be read"):
        SettingsCheckpointLoader(str(tmp_path / "torn.pt"), load_dict)(trainer())


def test_a_checkpoint_without_a_part_is_refused_in_a_sentence(tmp_path):
    network = probabilistic_unet()
    torch.save({"settings": {}, "model": network.state_dict()}, tmp_path / "model.pt")
    load_dict = {"settings": ModelSettings(d=3), "model": network, "optimizer": torch.optim.SGD(network.parameters())}
    with pytest.raises(InputError, match="lacks optimizer"):
        SettingsCheckpointLoader(str(tmp_path / "model.pt"), load_dict)(trainer())


def test_the_latest_checkpoint_is_the_highest_epoch(tmp_path):
    for epoch in (2, 10, 9):
        (tmp_path / f"checkpoint_epoch={epoch}.pt").touch()
    (tmp_path / "model.pt").touch()
    assert latest_checkpoint(str(tmp_path)).endswith("epoch=10.pt")
    with pytest.raises(InputError, match="no checkpoint in .*nowhere to resume from"):
        latest_checkpoint(str(tmp_path / "nowhere"))


def test_the_engines_own_state_is_kept(tmp_path):
    network = probabilistic_unet()
    saver = AtomicCheckpointSaver(
        save_dir=str(tmp_path), save_dict={"model": network}, save_engine=True, save_interval=1, n_saved=2
    )
    trainer([saver], network=network, max_epochs=3).run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_epoch=2.pt", "checkpoint_epoch=3.pt"]
    loader = SettingsCheckpointLoader(latest_checkpoint(str(tmp_path)), {"model": network}, load_engine=True)
    engine = trainer([loader], network=network, max_epochs=5)
    engine.run()
    assert (engine.state.epoch, engine.state.iteration) == (5, 20)


KILLED = """
import sys, torch
from aleatoric.handlers import AtomicCheckpointSaver
class Engine:
    class state:
        metrics, key_metric_name = {{"m": 1.0}}, "m"
    has_registered_events = lambda self, event: True
    fire_event = lambda self, event: None
class Slow:
    value, wait = 1, False
    def state_dict(self):
        return {{"value": torch.full((1000,), self.value), "slow": self}}
    def __reduce__(self):  # called in the middle of writing the file
        if self.wait:
            print("writing", flush=True)
            sys.stdin.read()
        return (int, ())
slow = Slow()
saver = AtomicCheckpointSaver(
    save_dir={folder!r}, save_dict={{"state": slow, "twin": slow}}, save_key_metric=True, key_metric_filename="model.pt"
)
saver._key_metric_checkpoint(Engine())
slow.value, slow.wait, Engine.state.metrics = 2, True, {{"m": 2.0}}
saver._key_metric_checkpoint(Engine())
"""


def test_a_kill_in_the_middle_of_saving_leaves_the_old_file(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(folder=str(tmp_path))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout.readline() == "writing\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (
        torch.load(tmp_path / "model.pt", weights_only=False)["state"]["value"][0] == 1
    )  # MONAI's saver leaves a torn one


def test_files_can_be_read_by_others(tmp_path):
    """As MONAI's are: a temporary file's mode is 0600."""
    network = probabilistic_unet()
    for number, cls in enumerate((AtomicCheckpointSaver, CheckpointSaver)):
        saver = cls(save_dir=str(tmp_path / str(number)), save_dict={"model": network}, save_interval=1)
        trainer([saver], network=network).run()
    ours, monais = (next((tmp_path / str(number)).glob("*.pt")).stat().st_mode for number in range(2))
    assert ours == monais
