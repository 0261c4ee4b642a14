"""`fit`, `validate` and `test`, by LightningCLI."""

import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import Namespace, set_loader
from jsonargparse.typing import register_type
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, ReduceLROnPlateau
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.optim import Optimizer

from mnist_lit.commands.command_line import CommandLine
from mnist_lit.commands.options import (
    Parser,
    help_on,
    innermost_reason,
    plain,
    with_given_shape,
)
from mnist_lit.console import ignore_closed_output, plain_console, warn
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError, one_line
from mnist_lit.files import user_path
from mnist_lit.models import ModuleSpec, Shape, class_path_of, find_class
from mnist_lit.training import checks, config_files, loggers, processes, run_folders
from mnist_lit.training.base_task import BaseTask, unsaved_buffers
from mnist_lit.training.callbacks import (
    BestCheckpoint,
    LastCheckpoint,
    Progress,
    RandomState,
    StopEarly,
    TrainingLog,
)
from mnist_lit.training.classification import LitClassifier
from mnist_lit.training.detection import LitDetector
from mnist_lit.training.results import print_results, scores
from mnist_lit.training.run import (
    changes_since,
    evaluate_run,
    has_begun,
    is_finished,
    resumable,
    train_run,
)
from mnist_lit.training.run_folders import Run

# Class weights of a loss, say, are given as lists.
register_type(
    Tensor,
    Tensor.tolist,
    lambda values: torch.tensor(values, dtype=torch.float32),
    fail_already_registered=False,
)

EXPECTED_WARNINGS = (
    # With tensors in memory, a worker process would only copy them.
    ".*does not have many workers",
    # A resumed run saves its checkpoints beside the ones it has.
    "Checkpoint directory .* exists and is not empty",
    # An epoch that is cut short, or skips validation, cannot be the best; `fit` says if none can.
    ".*could not find the monitored key",
    # The arguments given to LightningCLI are the same as those in sys.argv.
    "LightningCLI's args parameter is intended",
    # LightningCLI 2.6 uses names that jsonargparse 4.53 deprecates.
    r"\s*(``[\w.]+`` was deprecated in v4|By default only one Jsonargparse)",
    # TrainingLog logs each epoch, however short.
    "The number of training batches .* is smaller than the logging interval",
    # --optimizer is to replace the default one.
    ".*configure_optimizers` will be overridden by",
    # Running without srun on a SLURM machine is intended: one process.
    "The `srun` command is available",
    # Lightning 2.6 asks torch 2.15 in a way that is going to change.
    ".*isinstance.treespec, LeafSpec.* is deprecated",
)


def main(args: Sequence[str]) -> int:
    """Run ``fit``, ``validate`` or ``test``; the first of `args` says which."""
    if {"-h", "--help"} & set(args):
        print(help_on(args))
        return 0
    if "--trainer.help" in args:
        CLI([args[0], "--help"])
    try:
        cli = CLI(args)
    except UserError as error:
        if processes.prints_errors():
            raise
        raise SystemExit(2) from error
    if cli.run:
        print_results(cli.run)
    return 0


def _as_spec(module_class: type[nn.Module], *args: Any, **kwargs: Any) -> Any:
    """Return a `ModuleSpec`, built when the data's shape is known; build LightningModules now."""
    if issubclass(module_class, LightningModule):
        return module_class(*args, **kwargs)
    return ModuleSpec.of(module_class, kwargs)


class CLI(LightningCLI):
    """LightningCLI with this project's run folders and checks.

    The LightningModule is a `LitClassifier` and the data module an `MNISTDataModule`, unless the
    options ``--model`` and ``--data``, or ``class_path`` in a config, name others.
    """

    def __init__(self, args: Sequence[str]) -> None:
        for name in ("pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for name in ("callbacks", "profilers"):  # the user has asked for these
            logging.getLogger(f"pytorch_lightning.{name}").setLevel(logging.INFO)
        # Lightning makes torch look for GPUs through NVML. The optimizer asks in every step;
        # without a GPU, each call searches for the library in vain: 3 % of a step.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        processes.bind_to_launcher()
        self.line = CommandLine.resolve(args)
        classes = self.line.classes
        self.task: type[LightningModule] = LitClassifier
        if "model" in classes:
            self.task = find_class(classes["model"], LightningModule)
        self.data_module = MNISTDataModule
        if "data" in classes:
            self.data_module = find_class(classes["data"], MNISTDataModule)
        is_detector = issubclass(self.task, LitDetector)
        self.kind = run_folders.DETECTOR_RUN if is_detector else run_folders.CLASSIFIER_RUN
        self.resume_point = run_folders.ResumePoint()
        self.changes: list[str] = []  # of the config, since the run that is resumed
        self.new_run: Run | None = None  # the folder made here
        self.run: Run | None = None  # what `fit` has completed
        try:
            super().__init__(
                self.task,
                self.data_module,
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
                parser_kwargs={"default_env": True, "env_prefix": "MNIST_LIT"},
                args=self.line.args,
                load_from_checkpoint_support=False,  # checkpoints hold nothing of jsonargparse
            )
        except BaseException:
            trainer = getattr(self, "trainer", None)
            if self.new_run and not (trainer and has_begun(trainer, self.resume_point)):
                run_folders.discard(self.new_run)
            raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        loaders = {"train_dataloaders", "val_dataloaders", "dataloaders"}
        skipped = {"model", "datamodule", "weights_only", "verbose"} | loaders
        return {"fit": skipped, "validate": skipped, "test": skipped}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(StopEarly, "early_stopping")
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        parser.add_argument(
            "--lr_scheduler_interval", type=Literal["epoch", "step"], default="epoch"
        )
        self.link_data_sizes(parser)

    def link_data_sizes(self, parser: LightningArgumentParser) -> None:
        """Link the sizes that follow from the data to the model's parameters of these names."""
        actions = {action.dest: action for action in parser._actions}
        network: Any = actions.get("model.network")
        if network:
            # They are filled in from the data, so the parser must not require them.
            network.sub_add_kwargs["linked_targets"] = set(Shape._fields)
            parser.set_defaults({"model.network": {"class_path": "mnist_lit.models.CNN"}})
        for name in Shape._fields:
            if f"model.{name}" in actions:
                parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        self.parser.add_instantiator(_as_spec, nn.Module, subclasses=True)

    def configure_optimizers(  # type: ignore[override]
        self, lightning_module: LightningModule, optimizer: Optimizer, lr_scheduler: Any = None
    ) -> Any:
        """Use the model's own schedule unless another one is given."""
        if lr_scheduler is None and isinstance(lightning_module, BaseTask):
            return lightning_module.with_schedule(optimizer)
        if lr_scheduler is None:
            return optimizer
        schedule = {"scheduler": lr_scheduler, "interval": self.options.lr_scheduler_interval}
        if isinstance(lr_scheduler, ReduceLROnPlateau):
            schedule["monitor"] = lr_scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _parse_ckpt_path(self) -> None:
        """Keep the options as given; Lightning would let the checkpoint's win."""

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {one_line(error)}") from error

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        set_loader("yaml", config_files.load_yaml, (yaml.YAMLError,))
        try:
            super().parse_arguments(parser, args)
        except (UnicodeDecodeError, RecursionError) as error:
            raise UserError(
                f"an option names a file that is not a config: {one_line(error)}"
            ) from error

    def instantiate_classes(self) -> None:
        self.options = self.config[self.subcommand]
        self._check_values()
        self.config_yaml = self._dump()
        self.nested_config: Mapping[str, Any] = yaml.safe_load(self.config_yaml)
        self._choose_loggers()
        try:
            super().instantiate_classes()
        except (
            ImportError,
            MisconfigurationException,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise UserError(innermost_reason(str(error))) from error

    def _choose_loggers(self) -> None:
        """Split off the loggers that write into the run folder, which is not known yet."""
        given = self.options.trainer
        self.root = root = user_path(given.default_root_dir or os.getcwd())
        self.tensorboard, others = loggers.split_loggers(given.logger, root)
        if self.subcommand == "fit":
            self.resume_point = self.find_resume_point(root)
            run = self.resume_point.run
        else:
            which = self.options.ckpt_path or "best"
            self.checkpoint_path = run_folders.find_checkpoint(which, root, self.kind)
            run = run_folders.run_of(self.checkpoint_path)
        loggers.restore_logger_ids(others, run)
        given.logger = others or False

    def find_resume_point(self, root: Path) -> run_folders.ResumePoint:
        """Return the folder and checkpoint that `fit` starts from, below ``root``."""
        return run_folders.find_resume_point(self.options.ckpt_path, root, self.kind)

    def run_folder(self) -> Run | None:
        """Return the folder that `fit` writes to, a new one unless a run is resumed.

        None on all ranks but rank 0, and for a dry run.
        """
        if self.options.trainer.fast_dev_run or not processes.is_rank_zero():
            return None
        if self.resume_point.run is None:
            text = config_files.as_file(self.config_yaml, [])
            self.new_run = run_folders.claim(self.root, text, self.kind)
        return self.resume_point.run or self.new_run

    def _check_values(self) -> None:
        """Refuse null where a value or a section is required, which jsonargparse accepts."""
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
        """Dump all options as YAML.

        Raises:
            UserError: the dump could not be read again.
        """
        parser = self._parser(self.subcommand)
        options = plain(self.options)
        options.ckpt_path = None
        try:
            config: str = parser.dump(options, skip_unset=False)
            config = self._with_classes(with_given_shape(config, options))
            parser.parse_string(config)
        except (TypeError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"no config can hold these options: {one_line(error)}") from error
        if "Unable to serialize" in config:
            unable = next(line for line in config.splitlines() if "Unable to serialize" in line)
            raise UserError(f"no config can hold these options: {one_line(unable)}")
        return config

    def _with_classes(self, text: str) -> str:
        """Name the classes of model and data in a config, if they are not the usual ones."""
        usual: dict[str, tuple[type, type]] = {
            "model": (self.task, LitClassifier),
            "data": (self.data_module, MNISTDataModule),
        }
        for section, (found, default) in usual.items():
            if found is not default:
                text = config_files.with_class(text, section, class_path_of(found))
        return text

    def callbacks(self) -> list[Callback]:
        """Return the callbacks of every training, beside the config's."""
        callbacks: list[Callback] = [RandomState(), TrainingLog()]
        if self.options.trainer.enable_progress_bar is not False:
            callbacks.append(Progress())
        return callbacks

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        self.trainer_defaults["callbacks"] = self.callbacks()
        given = self.config_init[self.subcommand].trainer
        plugins = given.plugins or []
        kwargs["plugins"] = plugins if isinstance(plugins, list) else [plugins]
        if self.subcommand == "fit":
            checks.check_callbacks(given.callbacks)
            self.folder = self.run_folder()
            if self.folder:
                kwargs["logger"] = self._loggers(self.folder, given.logger or [])
            elif not processes.is_rank_zero():
                kwargs["logger"] = False
            kwargs["plugins"].append(
                run_folders.RunCheckpointIO(self.nested_config, self._replace_results)
            )
        trainer = super().instantiate_trainer(**kwargs)
        checks.check_device(trainer)
        return trainer

    def _loggers(self, run: Run, others: Sequence[Logger]) -> list[Logger]:
        checkpoint = self.resume_point.checkpoint
        purge_step = checkpoint["global_step"] if checkpoint else 0
        is_new = run == self.new_run
        return loggers.run_loggers(
            run, self.tensorboard, others, self.nested_config, None if is_new else purge_step
        )

    def _replace_results(self) -> None:
        """Replace the results and the config of a run that is resumed."""
        if self.folder and self.resume_point != run_folders.ResumePoint():
            self.folder.results.unlink(missing_ok=True)
            # TensorBoard's logger writes it anew.
            (self.folder.folder / "hparams.yaml").unlink(missing_ok=True)
            config_files.write(self.folder, self.config_yaml, self.changes)

    @ignore_closed_output()
    def fit(
        self, model: LightningModule, datamodule: MNISTDataModule, ckpt_path: str | None
    ) -> None:
        """Train, or resume, in a run folder; then evaluate the best checkpoint."""
        datamodule.setup()
        checks.check(self.options, self.trainer, model, datamodule)
        if self.trainer.is_global_zero:
            self.warn(model)
        if self.options.trainer.fast_dev_run:
            self.trainer.fit(model, datamodule=datamodule)
            return
        config, resume_point = self.nested_config, self.resume_point
        if resume_point.checkpoint and resume_point.checkpoint_path:
            self.changes = changes_since(resume_point.checkpoint, self.trainer, config)
            # Another network is refused before anything is written.
            run_folders.load_weights(model, resume_point.checkpoint_path)
        run = self.folder
        lock = run_folders.run_lock(run) if run else nullcontext()
        with resumable(self.trainer, self.resume_command), lock:
            if is_finished(resume_point, self.trainer):
                if run:
                    print(
                        f"{run.folder} is finished; to train it further, raise"
                        " --trainer.max_epochs (or --early_stopping.patience, if that ended it)"
                    )
                return
            if run and resume_point.checkpoint:
                step = resume_point.checkpoint["global_step"]
                print(f"resuming {run.folder} from step {step}", *self.changes, sep="\n  ")
            if run:
                loggers.log_config(run, self.trainer.loggers, config)
            train_run(self.trainer, model, datamodule, resume_point)
            processes.leave_group(self.trainer)
            if run:
                evaluate_run(run, self.trainer, model, datamodule, config)
        self.run = run

    def resume_command(self, last: Path) -> list[str]:
        """Return the arguments that resume the run from its last checkpoint."""
        return [*self.line.given, "--ckpt_path", str(last)]

    def warn(self, model: LightningModule) -> None:
        """Warn of surprises before a training begins."""
        replaced = self.line.replaced_callbacks(self.options.trainer.callbacks)
        if replaced:
            warn(
                f"trainer.callbacks replaces {', '.join(replaced)} of the config; to keep all, add"
                " yours with --trainer.callbacks+ CLASS"
            )
        buffers = unsaved_buffers(model)
        if buffers:
            warn(
                f"no checkpoint holds {', '.join(buffers)} (persistent=False): a resumed run has"
                " them as the constructor makes them, which is exact only if training does not"
                " change them"
            )

    def validate(
        self, model: LightningModule, datamodule: MNISTDataModule, ckpt_path: str | None
    ) -> None:
        """Print loss and accuracy on the validation images."""
        self._evaluate(self.trainer.validate, model, datamodule, "val")

    def test(
        self, model: LightningModule, datamodule: MNISTDataModule, ckpt_path: str | None
    ) -> None:
        """Print loss and accuracy on the test images."""
        self._evaluate(self.trainer.test, model, datamodule, "test")

    def _evaluate(
        self,
        evaluate: Callable[..., Any],
        model: LightningModule,
        data: MNISTDataModule,
        name: str,
    ) -> None:
        run_folders.load_weights(model, self.checkpoint_path)
        try:
            (metrics,) = evaluate(model, datamodule=data, verbose=False)
        except MisconfigurationException as error:  # a model without such a step
            raise UserError(one_line(error)) from error
        if self.trainer.is_global_zero:
            print(f"checkpoint {self.checkpoint_path}")
            plain_console().print(scores(metrics, [name]))
