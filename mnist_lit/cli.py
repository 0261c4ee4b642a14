"""`fit`, `validate` and `test`, by LightningCLI."""

import argparse
import difflib
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import Namespace, set_loader
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, StochasticWeightAveraging
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.strategies import SingleDeviceStrategy

from mnist_lit.checkpoints import load_checkpoint
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError, one_line
from mnist_lit.training import recipes, runs
from mnist_lit.training.callbacks import (
    BestCheckpoint,
    LastCheckpoint,
    Progress,
    Provenance,
    RandomState,
    StopEarly,
    TrainingLog,
)
from mnist_lit.training.life import FirstStep, Life
from mnist_lit.training.loggers import LogPositions
from mnist_lit.training.module import LitClassifier
from mnist_lit.training.results import show
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
    cli = CLI(_with_recipe(list(args)))
    if cli.run:
        show(cli.run)
    return 0


def _with_recipe(args: list[str]) -> list[str]:
    """Without a recipe, follow the one that the checkpoint was made with."""
    command, *options = args
    if {"-h", "--help"} & set(options):
        return args
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", nargs="?", action="append")
    parser.add_argument("--ckpt_path", nargs="?", default=None if command == "fit" else "best")
    parser.add_argument("--trainer.default_root_dir", dest="root", nargs="?", default=".")
    given, _ = parser.parse_known_args(options)
    for config in filter(None, given.config or []):
        if os.path.exists(config):  # else it may be a recipe itself
            recipes.check_file(Path(config))
    if given.config or not given.ckpt_path or not given.root:  # a new run; or a value is missing
        return args
    if command == "fit" and given.ckpt_path == "last":
        run = runs.newest(Path(given.root))
        if run.config.is_file():  # there may be no checkpoint yet
            return [command, "--config", str(run.config), *options]
    path = runs.find_checkpoint(given.ckpt_path, Path(given.root))
    # A newer run may have begun when it is loaded: from here on it is named.
    return [command, "--config", _recipe_of(path), *options, "--ckpt_path", str(path)]


def _recipe_of(checkpoint_path: Path) -> str:
    """The file in the checkpoint's run folder, or else what the checkpoint holds, as YAML."""
    run = runs.run_of(checkpoint_path)
    if run and run.config.is_file():
        return str(run.config)
    recipe = load_checkpoint(checkpoint_path)["mnist_lit"]["recipe"]
    if not run:  # what goes on from a copy does so here
        recipe = {**recipe, "trainer": {**recipe.get("trainer", {}), "default_root_dir": None}}
    try:
        text = yaml.safe_dump(recipe)
    except yaml.YAMLError as error:
        raise UserError(f"{checkpoint_path} holds no recipe; give one with --config") from error
    for class_path in re.findall(r"class_path: *(\S+)", text):
        if not class_path.startswith("pytorch_lightning."):
            raise UserError(
                f"the recipe in {checkpoint_path} names {class_path}, and whatever a checkpoint"
                " names is not run: give a recipe that you trust with --config"
            )
    return text


def _plain(options: Any) -> Any:
    """Options as text where they are objects, as some defaults of Lightning's callbacks."""
    if isinstance(options, Namespace):
        return Namespace(**{name: _plain(value) for name, value in vars(options).items()})  # type: ignore[no-untyped-call]
    if isinstance(options, list):
        return [_plain(value) for value in options]
    if isinstance(options, Enum):
        return options.value
    return str(options) if isinstance(options, torch.device) else options


class Parser(LightningArgumentParser):
    """An argument parser whose errors are one line, and whose options are written in full."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(message.split()).removeprefix("Parser key ")
        raise UserError(f"{line} ({self._hint(line)})")

    def print_help(self, file: Any = None) -> None:
        """As argparse does, but it is not silent where the disk is full."""
        print(self.format_help(), end="", file=file)

    def _hint(self, line: str) -> str:
        _, _, unknown = line.partition("unrecognized arguments: ")
        name = unknown.split(" ")[0].split("=")[0]
        known = [option for option in self._all_options() if option.startswith("--")]
        near = [option for option in known if name and option.startswith(name)]
        near = near or difflib.get_close_matches(name, known, n=1)
        if unknown and near:
            return f"did you mean {min(near, key=len)}?"
        return "`mnist-lit COMMAND --help` lists the options"

    def _all_options(self) -> Iterator[str]:
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser._all_options()


class CLI(LightningCLI):
    """LightningCLI, with this project's run folders and without its silent surprises."""

    def __init__(self, args: list[str]) -> None:
        for name in ("pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for name in ("callbacks", "profilers"):  # which somebody has asked for
            logging.getLogger(f"pytorch_lightning.{name}").setLevel(logging.INFO)
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
        parser.add_lightning_class_args(StopEarly, "early_stopping")
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")

    def _parse_ckpt_path(self) -> None:
        """Leave the options as they were given; Lightning would let the checkpoint's ones win."""

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {one_line(error)}") from error

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        set_loader("yaml", recipes.load_yaml, (yaml.YAMLError,))
        try:
            super().parse_arguments(parser, args)
        except (UnicodeDecodeError, RecursionError) as error:
            raise UserError(
                f"an option names a file that is no recipe: {one_line(error)}"
            ) from error

    def instantiate_classes(self) -> None:
        self.options = self.config[self.subcommand]
        self._check_values()
        self.recipe = self._dump()
        try:
            super().instantiate_classes()
        except (ImportError, RuntimeError, ValueError, MisconfigurationException) as error:
            raise UserError(one_line(error)) from error

    def _check_values(self) -> None:
        """Check what jsonargparse takes for left out: nothing where a value or a section is due."""
        parser = self._parser(self.subcommand)
        defaults = parser.get_defaults()
        for name in defaults.keys(branches=True):
            is_section = isinstance(defaults[name], Namespace)
            if is_section and not isinstance(self.options.get(name), Namespace):
                raise UserError(f"{name}: options are expected below it, not {self.options[name]}")
        try:
            parser.validate(self.options, skip_unset=False)
        except TypeError as error:
            parser.error(str(error))

    def _dump(self) -> str:
        """All options as YAML.

        Raises:
            UserError: what was written could not be read again.
        """
        parser = self._parser(self.subcommand)
        options = _plain(self.options)
        options.ckpt_path = None
        try:
            recipe: str = parser.dump(options, skip_unset=False)
            parser.parse_string(recipe)
        except (TypeError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"no recipe can hold these options: {one_line(error)}") from error
        if "Unable to serialize" in recipe:
            unable = next(line for line in recipe.splitlines() if "Unable to serialize" in line)
            raise UserError(f"no recipe can hold these options: {one_line(ValueError(unable))}")
        return recipe

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        callbacks: list[Callback] = [
            FirstStep(),
            RandomState(),
            TrainingLog(),
            LogPositions(),
            Provenance(yaml.safe_load(self.recipe)),
        ]
        if self.options.trainer.enable_progress_bar is not False:
            callbacks.append(Progress())
        self.trainer_defaults["callbacks"] = callbacks
        given = self.config_init[self.subcommand].trainer.callbacks or []
        for callback in given if isinstance(given, list) else [given]:
            if isinstance(callback, EarlyStopping):
                raise UserError(
                    "trainer.callbacks EarlyStopping: there is one already, so set its options,"
                    " --early_stopping.patience and the others"
                )
        if self._logs_into_the_run():
            kwargs["logger"] = False  # until the run folder is known
        plugins = self.options.trainer.plugins or []
        kwargs["plugins"] = [*plugins, runs.WholeFileCheckpointIO()]
        trainer = super().instantiate_trainer(**kwargs)
        if not isinstance(trainer.strategy, SingleDeviceStrategy):
            raise UserError(
                "a network this small trains on one device: --trainer.devices 1, and no strategy"
            )
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
            "trainer.callbacks StochasticWeightAveraging: its average is in no checkpoint, so take"
            " EMAWeightAveraging or WeightAveraging": (
                any(isinstance(found, StochasticWeightAveraging) for found in trainer.callbacks)  # type: ignore[attr-defined]
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
        life = Life(
            self.trainer,
            model,
            datamodule,
            self.recipe,
            self.arguments,
            self._logs_into_the_run(),
        )
        self.run = life.live(ckpt_path)

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
