"""`fit`, `validate` and `test`, by LightningCLI."""

import argparse
import logging
import platform
import subprocess
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.training import runs
from mnist_lit.training.callbacks import (
    BestCheckpoint,
    EarlyStopping,
    LastCheckpoint,
    Progress,
    RandomState,
    Speed,
)
from mnist_lit.training.loggers import LogPositions, rewind, run_loggers
from mnist_lit.training.module import LitClassifier
from mnist_lit.training.results import finish

EXPECTED_WARNINGS = (
    # With tensors in memory, a worker process would only copy them.
    ".*does not have many workers",
    # A run that goes on saves its checkpoints beside the ones it has.
    "Checkpoint directory .* exists and is not empty",
    # The arguments given to LightningCLI are the same as those in sys.argv.
    "LightningCLI's args parameter is intended",
    # LightningCLI 2.6 calls jsonargparse 4.53 by names that its version 5 will not have.
    r"\s*(``[\w.]+`` was deprecated in v4|By default only one Jsonargparse)",
    # Lightning 2.6 asks torch 2.15 in a way that is going to change.
    ".*isinstance.treespec, LeafSpec.* is deprecated",
)


def main(args: Sequence[str]) -> int:
    """Run ``fit``, ``validate`` or ``test``; the first of `args` says which."""
    CLI(_with_config_of_run(list(args)))
    return 0


def _with_config_of_run(args: list[str]) -> list[str]:
    """Let ``validate`` and ``test`` follow the recipe that the checkpoint's run was made with."""
    command, *options = args
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config")
    parser.add_argument("--ckpt_path", default="best")
    parser.add_argument("--trainer.default_root_dir", dest="root", default=".")
    given, _ = parser.parse_known_args(options)
    if command == "fit" or given.config or {"-h", "--help"} & set(options):
        return args
    run = runs.run_of(runs.find_checkpoint(given.ckpt_path, Path(given.root)))
    return [command, "--config", str(run.config), *options] if run else args


class Parser(LightningArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(message.split()).removeprefix("Parser key ")
        raise UserError(f"{line} (`mnist-lit COMMAND --help` lists the options)")


class CLI(LightningCLI):
    """LightningCLI, with this project's run folders and without its silent surprises."""

    def __init__(self, args: list[str]) -> None:
        for name in ("pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        super().__init__(
            LitClassifier,
            MNISTDataModule,
            save_config_callback=None,
            trainer_defaults={
                "max_epochs": 10,
                "devices": 1,
                "log_every_n_steps": 50,
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
            },
            seed_everything_default=1,
            parser_class=Parser,
            args=args,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # so that checkpoints hold nothing of jsonargparse
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        loaders = {"train_dataloaders", "val_dataloaders", "dataloaders"}
        skipped = {"model", "datamodule", "weights_only", "verbose"} | loaders
        return {"fit": skipped, "validate": skipped, "test": skipped}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")

    def _parse_ckpt_path(self) -> None:
        """Leave the options as they were given; Lightning would let the checkpoint's ones win."""

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            raise UserError(" ".join(str(error).split())) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        options = self._get(self.config_init, "trainer")
        self.speed = Speed()
        callbacks: list[Callback] = [RandomState(), self.speed, LogPositions()]
        if options.enable_progress_bar is not False:
            callbacks.append(Progress())
        self.trainer_defaults["callbacks"] = callbacks
        if options.logger in (None, True):
            kwargs["logger"] = False  # until the run folder is known
        trainer = super().instantiate_trainer(**kwargs)
        if trainer.world_size > 1:
            raise UserError("a network this small trains on one device: --trainer.devices 1")
        return trainer

    def fit(self, model: LitClassifier, datamodule: MNISTDataModule, ckpt_path: str | None) -> None:
        """Train, or go on training, in a run folder; then evaluate the best checkpoint."""
        datamodule.setup()  # now, so that data which cannot be had leaves no run folder behind
        if self._get_config().trainer.fast_dev_run:
            self.trainer.fit(model, datamodule=datamodule)
            return
        start = runs.start(ckpt_path, Path(self.trainer.default_root_dir))
        if start.checkpoint:
            if self._is_finished(start.checkpoint) and start.run.results.is_file():
                print(
                    f"{start.run.folder} is finished; to train it further, raise"
                    " --trainer.max_epochs (or --early_stopping.patience, if that ended it)"
                )
                return
            print(f"{start.run.folder} goes on from step {start.checkpoint['global_step']}")
        self._open(start)
        self.trainer.fit(
            model, datamodule=datamodule, ckpt_path=start.checkpoint_path, weights_only=True
        )
        runs.load_weights(model, start.run.best)
        finish(start.run, self.trainer, model, datamodule, self._facts())

    def _is_finished(self, checkpoint: dict[str, Any]) -> bool:
        """Whether there is nothing left to train from this checkpoint on."""
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        stopper = self._get(self.config_init, "early_stopping")
        return bool(
            epochs >= (self.trainer.max_epochs or 0)
            or checkpoint["global_step"] >= self.trainer.max_steps != -1
            or checkpoint["callbacks"][stopper.state_key]["wait_count"] >= stopper.patience
        )

    def _open(self, start: runs.Start) -> None:
        """Make the run folder ready to be written to, from the checkpoint's step on."""
        run = start.run
        run.results.unlink(missing_ok=True)
        rewind(run, start.checkpoint)
        if self._get(self.config_init, "trainer").logger in (None, True):
            self.trainer.loggers = run_loggers(run)
        self._get(self.config_init, "best_checkpoint").dirpath = str(run.checkpoints)
        self._get(self.config_init, "last_checkpoint").path = run.last
        config = self._get_config().clone()
        config.ckpt_path = None
        text = self._parser("fit").dump(config, skip_unset=False)
        with runs.whole_file(run.config) as path:
            path.write_text("".join(f"# {line}\n" for line in _versions()) + text)

    def _get_config(self) -> Any:
        return self.config[self.subcommand]

    def _facts(self) -> dict[str, Any]:
        return {
            "seed": self._get_config().seed_everything,
            "epochs": self.trainer.current_epoch,
            "params": sum(weight.numel() for weight in self.model.parameters()),
            "fit_seconds": self.speed.fit_seconds,
            "images_per_s": self.speed.images_per_s,
            "device": str(self.trainer.strategy.root_device),
            "num_threads": torch.get_num_threads(),
        }

    def validate(
        self, model: LitClassifier, datamodule: MNISTDataModule, ckpt_path: str | None
    ) -> None:
        """Loss and accuracy on the validation images."""
        self._load_weights(model, ckpt_path)
        self.trainer.validate(model, datamodule=datamodule)

    def test(
        self, model: LitClassifier, datamodule: MNISTDataModule, ckpt_path: str | None
    ) -> None:
        """Loss and accuracy on the test images."""
        self._load_weights(model, ckpt_path)
        self.trainer.test(model, datamodule=datamodule)

    def _load_weights(self, model: LitClassifier, ckpt_path: str | None) -> None:
        path = runs.find_checkpoint(ckpt_path or "best", Path(self.trainer.default_root_dir))
        runs.load_weights(model, path)
        print(f"checkpoint {path}")


def _versions() -> list[str]:
    """What made a run, line by line."""
    packages = ("mnist-lit", "torch", "torchvision", "pytorch-lightning")
    lines = [f"{name} {version(name)}" for name in packages]
    lines.append(f"python {platform.python_version()}")
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines.append(f"git {commit.strip()}")
    except (OSError, subprocess.CalledProcessError):
        pass  # no git, or not in a repository
    return lines
