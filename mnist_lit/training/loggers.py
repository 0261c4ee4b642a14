"""The loggers of a run: TensorBoard and CSV in its folder, and others such as MLflow."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import loggers
from pytorch_lightning.loggers import Logger
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import hparams

from mnist_lit.console import warning_if_failed
from mnist_lit.errors import UserError
from mnist_lit.files import atomic_write
from mnist_lit.reports.run_data import NOTHING, as_text
from mnist_lit.training.config_files import defaults, options_of
from mnist_lit.training.csv_logger import ContinuingCSVLogger
from mnist_lit.training.run_folders import Run

# Columns of TensorBoard's HParams tab for every run; others only if they differ from the default.
COMPARED = {
    "seed_everything",
    "data.dataset",
    "data.batch_size",
    "data.val_size",
    "model.network.class_path",
    "model.network.init_args.dropout",
    "model.lr",
    "model.schedule",
    "model.label_smoothing",
    "model.loss",
    "trainer.max_epochs",
}
# Loggers with run ids of their own, and the argument by which they resume such a run.
RESUME_ARGUMENT = {"MLFlowLogger": "run_id", "WandbLogger": "version"}


def split_loggers(given: Any, root: Path) -> tuple[dict[str, Any] | None, list[Namespace]]:
    """Split the option trainer.logger into TensorBoard's and others.

    Args:
        given: true or null: TensorBoard and ``metrics.csv``; false: this alone; or one logger of
            Lightning's, or several, by class and arguments. ``metrics.csv`` is written anyway.
        root: below which runs are.

    Returns:
        Options of TensorBoard's logger, None if there is to be none; and the loggers that do not
        write into the run folder.

    Raises:
        UserError: a CSV or TensorBoard logger has another save_dir, a name or a version.
    """
    if given is None or isinstance(given, bool):
        return (None if given is False else {}), []
    tensorboard, others = None, []
    for logger in given if isinstance(given, list) else [given]:
        name = _class_name(logger)
        if name not in ("CSVLogger", "TensorBoardLogger"):
            if name == "MLFlowLogger":
                _choose_mlflow_store(logger.init_args)
            others.append(logger)
            continue
        options = dict(vars(logger.init_args))
        place = [options.pop("save_dir"), options.pop("name"), options.pop("version")]
        if Path(place[0]).resolve() != root.resolve() or place[1:] != ["lightning_logs", None]:
            raise UserError(
                f"trainer.logger {name} writes into the run folder: give it save_dir {root}, and"
                " neither name nor version"
            )
        if name == "TensorBoardLogger":
            tensorboard = options
    return tensorboard, others


def _choose_mlflow_store(options: Namespace) -> None:
    """Default to SQLite beside ``save_dir``: MLflow no longer writes files unless told to.

    ``mlflow.db`` in the current folder is what ``mlflow ui`` shows by default. A store of files
    that exists already stays in use.
    """
    save_dir = Path(options.save_dir or "mlruns").resolve()
    if not options.tracking_uri and not (save_dir / "0" / "meta.yaml").is_file():
        options.tracking_uri = f"sqlite:///{save_dir.parent.as_posix()}/mlflow.db"
        options.artifact_location = options.artifact_location or save_dir.as_uri()


def _class_name(logger: Namespace) -> str:
    return str(logger.class_path).rpartition(".")[2]


def restore_logger_ids(others: Sequence[Namespace], run: Run | None) -> None:
    """Restore the ids by which loggers resume their own runs."""
    known = _stored_ids(run) if run else {}
    for logger in others:
        name = _class_name(logger)
        if name in known:
            logger.init_args[RESUME_ARGUMENT[name]] = known[name]


def _stored_ids(run: Run) -> dict[str, str]:
    try:
        ids = json.loads(run.loggers.read_bytes())
    except (OSError, ValueError):  # of a run that has no such loggers, or was cut off
        return {}
    return ids if isinstance(ids, dict) else {}


def run_loggers(
    run: Run,
    tensorboard: Mapping[str, Any] | None,
    others: Sequence[Logger],
    config: Mapping[str, Any],
    purge_step: int | None,
) -> list[Logger]:
    """Make the loggers of a run; the one that writes ``metrics.csv`` is the first.

    Args:
        run: its folder; Lightning puts checkpoints beside the first logger's file.
        tensorboard: options of TensorBoard's logger; None: there is none.
        others: loggers that do not write into the run folder.
        config: all options, nested as in a config file.
        purge_step: step from which on a resumed run logs again; None: of a new run.
    """
    own: list[Logger] = [ContinuingCSVLogger(run, purge_step)]
    if tensorboard is not None:
        place = (run.folder.parent.parent, run.folder.parent.name, run.folder.name)
        given = {"default_hp_metric": False, "purge_step": purge_step, **tensorboard}
        own.append(loggers.TensorBoardLogger(*place, **given))
        own[-1].log_hyperparams(options_of(config))  # not CSV's, which would write over this one's
    return [*own, *others]


def log_config(run: Run, given: Sequence[Logger], config: Mapping[str, Any]) -> None:
    """Log the config of a run once to loggers outside of its folder, and store their ids."""
    ids = {}
    own = (loggers.CSVLogger, loggers.TensorBoardLogger)
    others = [logger for logger in given if not isinstance(logger, own)]
    for logger in others:
        if isinstance(logger, loggers.MLFlowLogger | loggers.WandbLogger):
            _ = logger.experiment  # creates the run, and with it the id
            ids[type(logger).__name__] = logger.version
    if not others or (run.loggers.is_file() and ids == _stored_ids(run)):
        return
    for logger in others:
        logger.log_hyperparams(_as_hparams(options_of(config)))
    with atomic_write(run.loggers) as path:
        path.write_text(json.dumps(ids) + "\n", encoding="utf-8")


def log_end(
    logger: Logger,
    config: Mapping[str, Any],
    step: int,
    metrics: Mapping[str, float] | None = None,
    pictures: Sequence[Path] = (),
) -> None:
    """Log metrics and figures at the end of a run, and close the logger.

    Args:
        logger: which.
        config: all options, nested as in a config file.
        step: the last one.
        metrics: of the test images.
        pictures: PNG files.
    """
    try:
        if metrics:
            logger.log_metrics(dict(metrics), step)
        if isinstance(logger, loggers.TensorBoardLogger):
            log_compared(logger, config)
        for path in pictures:
            log_figure(logger, path, step)
    finally:
        finalize(logger)


def log_compared(logger: loggers.TensorBoardLogger, config: Mapping[str, Any]) -> None:
    """Show a run in the HParams tab; other loggers compare runs anyway."""
    # Without the first summary, which would fix the columns to those of one run.
    _, start, end = hparams(_compared(config), {})  # type: ignore[no-untyped-call]
    for summary in (start, end):
        logger.experiment._get_file_writer().add_summary(summary)


def _compared(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """The options of `COMPARED`, and those that are not the defaults."""
    usual = {name: as_text(value) for name, value in defaults().items()}
    return _as_hparams(
        {
            name: value
            for name, value in options_of(config).items()
            if name in COMPARED or as_text(value) != usual.get(name, NOTHING)
        }
    )


def log_figure(logger: Logger, path: Path, step: int) -> None:
    """Log a PNG, if the logger takes pictures."""
    if isinstance(logger, loggers.TensorBoardLogger):
        image = Summary.Image(encoded_image_string=path.read_bytes())
        summary = Summary(value=[Summary.Value(tag=path.stem, image=image)])
        logger.experiment.file_writer.add_summary(summary, step)
    elif isinstance(logger, loggers.MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(path), "figures")
    elif isinstance(logger, loggers.WandbLogger):
        logger.log_image(path.stem, [str(path)])


@contextmanager
def silencing_disk_errors() -> Iterator[None]:
    """Silence disk errors of TensorBoard's writer thread; the training reports them."""

    def complain(failure: threading.ExceptHookArgs) -> None:
        if not isinstance(failure.exc_value, OSError):
            previous(failure)

    previous = threading.excepthook
    threading.excepthook = complain
    try:
        yield
    finally:
        threading.excepthook = previous


@contextmanager
def closing_if_failed(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close loggers with status failed if the block raises."""
    try:
        yield
    except BaseException:
        for logger in loggers:
            with warning_if_failed(f"closing {type(logger).__name__}"):
                logger.finalize("failed")
        raise


def finalize(logger: Logger) -> None:
    """Flush and close a logger."""
    logger.finalize("success")
    if isinstance(logger, loggers.WandbLogger):
        logger.experiment.finish()  # else the next run of this process would continue it


def _as_hparams(options: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Convert options to numbers and text, which is what loggers take."""
    return {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in options.items()
    }
