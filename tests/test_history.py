import csv

from ignite.engine import Engine, Events

from aleatoric.history import HistoryWriter


def trainer_of(folder, evaluator, **options):
    engine = Engine(lambda engine, batch: batch)

    @engine.on(Events.EPOCH_COMPLETED)
    def figures(engine):
        engine.state.metrics = {"train_loss": 10.0 / engine.state.epoch}
        if engine.state.epoch % 2 == 0:  # validation every second epoch
            first = evaluator[0] if isinstance(evaluator, list) else evaluator
            first.state.epoch = engine.state.epoch
            first.state.metrics = {"val_loss": 20.0 / engine.state.epoch}

    HistoryWriter(folder, evaluator, **options).attach(engine)
    return engine


def rows(folder):
    with (folder / "training.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_per_epoch_and_validation_only_where_it_ran(tmp_path):
    trainer_of(tmp_path, Engine(lambda engine, batch: batch)).run([0], max_epochs=4)
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2", "3", "4"]
    assert [row["train_loss"] for row in rows(tmp_path)] == ["10", "5", "3.33333", "2.5"]
    assert [row["val_loss"] for row in rows(tmp_path)] == ["", "10", "", "5"]
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")


def test_figures_of_several_evaluators_stand_in_a_row(tmp_path):
    loss, samples = (Engine(lambda engine, batch: batch) for _ in range(2))
    samples.state.epoch, samples.state.metrics = 2, {"val_ged": 0.5, "all": {"val_ged": 0.5}}
    trainer_of(tmp_path, [loss, samples]).run([0], max_epochs=3)
    assert [row["val_ged"] for row in rows(tmp_path)] == ["", "0.5", ""]


def test_a_resumed_run_goes_on_with_the_table_and_a_new_run_does_not(tmp_path):
    evaluator = Engine(lambda engine, batch: batch)
    trainer_of(tmp_path, evaluator).run([0], max_epochs=3)
    resumed = trainer_of(tmp_path, evaluator)
    resumed.load_state_dict({"epoch": 2, "epoch_length": 1, "max_epochs": 3})  # the third epoch's checkpoint was lost
    resumed.run([0], max_epochs=4)
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2", "3", "4"]
    trainer_of(tmp_path, evaluator).run([0], max_epochs=1)
    assert [row["epoch"] for row in rows(tmp_path)] == ["1"]
