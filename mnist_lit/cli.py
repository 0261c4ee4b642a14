"""`fit`, `validate` and `test`, by LightningCLI."""

import argparse
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.training import recipes, runs
from mnist_lit.training.callbacks import (
    BestCheckpoint,
    EarlyStopping,
    Interrupted,
    LastCheckpoint,
    Progress,
    Provenance,
    RandomState,
    TrainingLog,
)
from mnist_lit.training.loggers import LogPositions, rewind, run_loggers
from mnist_lit.training.module import LitClassifier
from mnist_lit.training.results import finish, show
from mnist_lit.training.runs import Run

EXPECTED_WARNINGS = (
    # With tensors in memory, a worker process would only copy them.
    ".*does not have many workers",
    # A run that goes on saves its checkpoints beside the ones it has.
    "Checkpoint directory .* exists and is not empty",
    # An epoch that is cut short, or skips validation, cannot be the best; `fit` says if none can.
    ".*could not find the monitored key",
    "Early stopping conditioned on metric",
    # The arguments given to LightningCLI are the same as those in sys.argv.
    "LightningCLI's args parameter is intended",
    # LightningCLI 2.6 calls jsonargparse 4.53 by names that its version 5 will not have.
    r"\s*(``[\w.]+`` was deprecated in v4|By default only one Jsonargparse)",
    # Lightning 2.6 asks torch 2.15 in a way that is going to change.
    ".*isinstance.treespec, LeafSpec.* is deprecated",
)


def main(args: Sequence[str]) -> int:
    """Run ``fit``, ``validate`` or ``test``; the first of `args` says which."""
    cli = CLI(_with_config_of_run(list(args)))
    if cli.run:
        show(cli.run)
    return 0


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _epochs_done(checkpoint: dict[str, Any]) -> int:
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def _with_config_of_run(args: list[str]) -> list[str]:
    """Without a recipe, follow the one that the checkpoint's run was made with."""
    command, *options = args
    if {"-h", "--help"} & set(options):
        return args
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", nargs="?")
    parser.add_argument("--ckpt_path", nargs="?", default=None if command == "fit" else "best")
    parser.add_argument("--trainer.default_root_dir", dest="root", nargs="?", default=".")
    given, _ = parser.parse_known_args(options)
    if given.config or not given.ckpt_path or not given.root:  # a new run; or a value is missing
        return args
    if command == "fit" and given.ckpt_path == "last":
        config = runs.newest(Path(given.root)).config  # there may be no checkpoint yet
        return [command, "--config", str(config), *options] if config.is_file() else args
    path = runs.find_checkpoint(given.ckpt_path, Path(given.root))
    run = runs.run_of(path)
    found = ["--ckpt_path", str(path)]  # a newer run may have begun when it is loaded
    return [command, "--config", str(run.config), *options, *found] if run else args


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
        # Lightning has torch look for GPUs by way of NVML. The optimizer asks in every step, and
        # where there is none, each time a library is searched for in vain: 3 % of a step.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        self.arguments = args
        self.run: Run | None = None  # what `fit` has completed
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

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {_one_line(error)}") from error

    def instantiate_classes(self) -> None:
        self.options = self.config[self.subcommand]
        recipe = self.options.clone()
        recipe.ckpt_path = None
        self.recipe = self._parser(self.subcommand).dump(recipe, skip_unset=False)
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            raise UserError(_one_line(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        self.training_log = TrainingLog()
        callbacks: list[Callback] = [
            RandomState(),
            self.training_log,
            LogPositions(),
            Provenance(yaml.safe_load(self.recipe)),
        ]
        if self.options.trainer.enable_progress_bar is not False:
            callbacks.append(Progress())
        self.trainer_defaults["callbacks"] = callbacks
        if self._logs_into_the_run():
            kwargs["logger"] = False  # until the run folder is known
        plugins = self.options.trainer.plugins or []
        kwargs["plugins"] = [*plugins, runs.WholeFileCheckpointIO()]
        trainer = super().instantiate_trainer(**kwargs)
        if trainer.world_size > 1:
            raise UserError("a network this small trains on one device: --trainer.devices 1")
        if trainer.precision not in ("32-true", "16-mixed", "bf16-mixed"):
            raise UserError(
                f"trainer.precision {trainer.precision}: take 32-true, 16-mixed or bf16-mixed"
            )
        return trainer

    def _refuse_what_cannot_work(self) -> None:
        """Say it before a run folder is made.

        Raises:
            UserError: options of the Trainer do not go with this project.
        """
        given, trainer = self.options.trainer, self.trainer
        endless = trainer.max_epochs == trainer.max_steps == -1
        problems = {
            "trainer.accumulate_grad_batches: a step is a batch here, so set data.batch_size": (
                given.accumulate_grad_batches != 1
            ),
            "trainer.overfit_batches: set trainer.limit_train_batches instead": (
                given.overfit_batches != 0
            ),
            "trainer.limit_val_batches 0: without validation there is no best epoch": (
                given.limit_val_batches == 0
            ),
            "trainer.limit_predict_batches: results are of all images, so leave it out": (
                given.limit_predict_batches not in (None, 1.0)
            ),
            "there is nothing to train: raise trainer.max_epochs, max_steps, limit_train_batches": (
                0 in (trainer.max_epochs, trainer.max_steps, given.limit_train_batches)
            ),
            "trainer.log_every_n_steps 0: there are no curves without points, take 1 or more": (
                given.log_every_n_steps == 0
            ),
            "trainer.gradient_clip_val goes with trainer.precision 32-true only": (
                bool(given.gradient_clip_val) and trainer.precision != "32-true"
            ),
            "model.schedule one_cycle has to know the end: set trainer.max_epochs": (
                endless and self.model.schedule == "one_cycle"
            ),
        }
        for message, is_there in problems.items():
            if is_there:
                raise UserError(message)

    def _logs_into_the_run(self) -> bool:
        return self.options.trainer.logger in (None, True)

    def fit(self, model: LitClassifier, datamodule: MNISTDataModule, ckpt_path: str | None) -> None:
        """Train, or go on training, in a run folder; then evaluate the best checkpoint."""
        self._refuse_what_cannot_work()
        datamodule.setup()  # now, so that data which cannot be had leaves no run folder behind
        if self.options.trainer.fast_dev_run:
            self.trainer.fit(model, datamodule=datamodule)
            return
        root = Path(self.trainer.default_root_dir)
        start = runs.start(ckpt_path, root)
        notes = self._changes_since(start.checkpoint)
        if start.checkpoint_path:  # another network is refused before anything is written
            runs.load_weights(model, start.checkpoint_path)
        run = start.run or runs.claim(root)
        last_checkpoint: LastCheckpoint = self._get(self.config_init, "last_checkpoint")
        try:
            with runs.alone(run), last_checkpoint.watching_signals():
                if start.checkpoint and self._is_finished(start.checkpoint, run):
                    print(
                        f"{run.folder} is finished; to train it further, raise"
                        " --trainer.max_epochs (or --early_stopping.patience, if that ended it)"
                    )
                    return
                self._open(run, start.checkpoint, notes)
                self.trainer.fit(
                    model, datamodule=datamodule, ckpt_path=start.checkpoint_path, weights_only=True
                )
                if not run.best.is_file():
                    raise UserError(
                        "no epoch was validated, so none is the best: raise trainer.max_epochs,"
                        " max_steps or max_time, or lower trainer.check_val_every_n_epoch"
                    )
                runs.load_weights(model, run.best)
                finish(run, self.trainer, model, datamodule, self._facts())
                self.run = run
        except Interrupted as interruption:
            how = self._how_to_go_on(run)
            print(f"\n{interruption.signal.name}: stopped; {how}", file=sys.stderr)
            raise
        except MisconfigurationException as error:  # Lightning's own objection to an option
            raise UserError(_one_line(error)) from error
        except OSError as error:
            raise UserError(f"{error}; mend that, then {self._how_to_go_on(run)}") from error

    def _changes_since(self, checkpoint: dict[str, Any] | None) -> list[str]:
        """What differs from the recipe that a checkpoint was made with.

        Raises:
            UserError: by this one, no run can go on from it.
        """
        if checkpoint is None:
            return []
        epochs = _epochs_done(checkpoint)
        if epochs > (self.trainer.max_epochs or 0) >= 0:
            raise UserError(f"this run has had {epochs} epochs already: raise --trainer.max_epochs")
        changes = recipes.changes(checkpoint["mnist_lit"]["recipe"], yaml.safe_load(self.recipe))
        return [f"from step {checkpoint['global_step']} on: {change}" for change in changes]

    def _open(self, run: Run, checkpoint: dict[str, Any] | None, notes: list[str]) -> None:
        """Make a run folder ready to be written to, from the checkpoint's step on."""
        if checkpoint:
            print(f"{run.folder} goes on from step {checkpoint['global_step']}", *notes, sep="\n  ")
        run.results.unlink(missing_ok=True)
        rewind(run, checkpoint)
        recipes.write(run, self.recipe, notes)
        if self._logs_into_the_run():
            self.trainer.loggers = run_loggers(run)
        self._get(self.config_init, "best_checkpoint").dirpath = str(run.checkpoints)
        self._get(self.config_init, "last_checkpoint").path = run.last

    def _is_finished(self, checkpoint: dict[str, Any], run: Run) -> bool:
        """Whether nothing is left to do from this checkpoint on: no training, no results."""
        epochs = _epochs_done(checkpoint)
        stopper: EarlyStopping = self._get(self.config_init, "early_stopping")
        stopping = checkpoint["callbacks"].get(stopper.state_key, {"wait_count": 0})
        return run.results.is_file() and bool(
            epochs >= (self.trainer.max_epochs or 0) >= 0
            or checkpoint["global_step"] >= self.trainer.max_steps != -1
            or stopping["wait_count"] >= stopper.patience
        )

    def _how_to_go_on(self, run: Run) -> str:
        if not run.last.is_file():
            return "start again: no step was saved yet"
        program = "python -m mnist_lit" if sys.argv[0].endswith("__main__.py") else "mnist-lit"
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--ckpt_path")
        _, others = parser.parse_known_args(self.arguments)
        return f"go on with: {program} {shlex.join([*others, '--ckpt_path', str(run.last)])}"

    def _facts(self) -> dict[str, Any]:
        return {
            "seed": self.options.seed_everything,
            "epochs": self.trainer.current_epoch,
            "params": sum(weight.numel() for weight in self.model.parameters()),
            "fit_seconds": self.training_log.fit_seconds,
            "images_per_s": self.training_log.images_per_s,
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
