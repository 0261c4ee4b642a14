"""Learning rates and the logging of training metrics."""

import csv
from pathlib import Path
from typing import Any

import own
import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from mnist_lit import Classifier, LitClassifier, MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.training.base_task import one_cycle
from mnist_lit.training.callbacks import TrainingLog


@pytest.mark.parametrize(
    ("progress", "share"),
    [(0.0, 0.04), (0.1, 0.52), (0.2, 1.0), (0.6, 0.5), (1.0, 0.0)],
)
def test_one_cycle_rises_and_falls(progress: float, share: float) -> None:
    assert one_cycle(progress, warmup=0.2) == pytest.approx(share)


def test_one_cycle_without_warmup_only_falls() -> None:
    assert one_cycle(0.0, warmup=0.0) == 1.0


@pytest.mark.filterwarnings("ignore")  # what `fit` keeps quiet about
def test_modules_do_with_any_trainer(tmp_path: Path) -> None:
    trainer = Trainer(max_steps=120, logger=False, enable_checkpointing=False, accelerator="cpu")
    model, data = LitClassifier(own.Perceptron(10, 1, 28), lr=0.003), MNISTDataModule()
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loss, right, num = torch.load(tmp_path / "model.ckpt", weights_only=True)["train_sums"]

    assert trainer.validate(model, datamodule=data)[0]["val/acc"] > 0.8
    assert num == 120 * data.batch_size
    assert 0 < right < num
    assert 0 < loss / num < 2.3
    with pytest.raises(UserError, match="is not a checkpoint made by `mnist-lit fit`"):
        Classifier.load(tmp_path / "model.ckpt", own.Perceptron)


@pytest.mark.filterwarnings("ignore")  # what `fit` keeps quiet about
@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_logged_learning_rate_is_that_of_the_step(
    interval: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, log = LitClassifier(), MNISTDataModule(), CSVLogger(tmp_path)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    configured: Any = {"scheduler": scheduler, "interval": interval}
    monkeypatch.setattr(
        model,
        "configure_optimizers",
        lambda: {"optimizer": optimizer, "lr_scheduler": configured},
    )
    trainer = Trainer(
        max_epochs=2,
        limit_train_batches=2,
        limit_val_batches=0,
        log_every_n_steps=1,
        logger=log,
        callbacks=TrainingLog(),
        enable_checkpointing=False,
        accelerator="cpu",
    )
    trainer.fit(model, datamodule=data)
    with Path(log.log_dir, "metrics.csv").open(encoding="utf-8", newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]

    in_steps, in_epochs = [0.1, 0.05, 0.025, 0.0125], [0.1, 0.1, 0.05, 0.05]
    assert rates == pytest.approx(in_steps if interval == "step" else in_epochs)


def test_training_metrics_are_those_of_digits_alone() -> None:
    lit = LitClassifier()
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    lit.trainer = trainer
    logits, labels = torch.eye(10) * 5, torch.arange(10)
    labels[0] = 7
    lit.network = torch.nn.Identity()
    lit.training_step((logits, labels), 0)
    of_digits = lit.training_metrics()
    shares = torch.nn.functional.one_hot(labels, 10).float()
    no_digits = torch.randn(5, 10), torch.full((5, 10), 0.1)
    for batch in ((logits, shares), no_digits, (logits, labels)):
        lit.training_step(batch, 0)

    assert lit.training_metrics() == pytest.approx(of_digits)
    assert of_digits["train/acc"] == pytest.approx(0.9)
