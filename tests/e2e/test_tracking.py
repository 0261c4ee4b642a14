from pathlib import Path

import pytest
from conftest import QUICKLY, SMALL_DIGITS, Fit, steps_of
from mlflow.tracking import MlflowClient

from mnist_lit.__main__ import main

pytestmark = pytest.mark.slow

TRACKED = """
trainer:
  logger:
  - class_path: MLFlowLogger
    init_args: {save_dir: STORE/mlruns}
  - class_path: WandbLogger
    init_args: {offline: true, save_dir: STORE}
"""


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config with the loggers of MLflow and Weights & Biases, which keep all in this folder."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "WANDB_SILENT"):
        monkeypatch.setenv(name, "true")
    config = tmp_path / "tracked.yaml"
    config.write_text(TRACKED.replace("STORE", str(tmp_path)))
    return config


@pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb")  # its own affair
@pytest.mark.filterwarnings("ignore:The ``noload`` loader")  # MLflow's, with SQLAlchemy 2.1
def test_loggers_of_others_are_told_all_and_go_on(fit: Fit, tracked: Path, tmp_path: Path) -> None:
    run = fit("--config", str(tracked), *QUICKLY, "--trainer.max_epochs=1")
    fit(SMALL_DIGITS, "--ckpt_path=last", "--trainer.max_epochs=2", "--model.lr=0.002")

    assert steps_of(run, "train/loss") == [9, 19, 29, 39]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("lightning_logs")
    assert experiment
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.data.params["model.network.class_path"] == "mnist_lit.models.CNN"
    assert kept.info.status == "FINISHED"
    assert {"val/acc", "test/acc", "test/loss"} <= kept.data.metrics.keys()
    history = client.get_metric_history(kept.info.run_id, "train/loss")
    assert [point.step for point in history] == [9, 19, 29, 39]
    pictures = client.list_artifacts(kept.info.run_id, "figures")
    assert {Path(file.path).stem for file in pictures} >= {"confusion", "mistakes", "curves"}
    sittings = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(sittings) == 2
    assert len({folder.name.rpartition("-")[2] for folder in sittings}) == 1, "both of one run"
    assert all(list(folder.rglob("confusion*.png")) for folder in sittings)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("asked", ["false", "CSVLogger"])
def test_curves_are_in_the_run_folder_without_tensorboard_too(
    asked: str, fit: Fit, tmp_path: Path
) -> None:
    place = [f"--trainer.logger.save_dir={tmp_path}"] if asked == "CSVLogger" else []
    run = fit(*QUICKLY, f"--trainer.logger={asked}", *place)

    assert steps_of(run, "train/loss") == [9, 19, 29, 39]
    assert not list(tmp_path.rglob("events.*"))
    assert list(tmp_path.rglob("metrics.csv")) == [run.metrics]


@pytest.mark.parametrize("logger", ["CSVLogger", "TensorBoardLogger"])
def test_own_loggers_write_into_the_run_folder_alone(
    logger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--trainer.logger={logger}", "--trainer.logger.save_dir=elsewhere"]

    assert main(["fit", f"--trainer.default_root_dir={tmp_path}", *options]) == 2
    assert f"give it save_dir {tmp_path}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("undrawn")
def test_logger_of_ones_own_gets_the_config_once(fit: Fit, tmp_path: Path) -> None:
    logger = ["--trainer.logger=own.NotingLogger", f"--trainer.logger.path={tmp_path}/noted"]
    fit(*QUICKLY, *logger, "--trainer.max_epochs=1")
    fit("--ckpt_path=last", "--trainer.max_epochs=2")
    (line,) = (tmp_path / "noted").read_text().splitlines()

    assert {"model.lr", "data.batch_size", "seed_everything"} <= set(line.split())
