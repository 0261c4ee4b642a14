"""`detector`: train the network that finds digits in pictures."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning.cli import LightningArgumentParser

from mnist_lit.commands.fit import CLI
from mnist_lit.commands.options import with_config
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.synthetic.data import SheetDataModule
from mnist_lit.training import config_files, limits, runs
from mnist_lit.training.base_task import BaseTask
from mnist_lit.training.detection import LitDetector
from mnist_lit.training.detection_results import finish, show
from mnist_lit.training.run_session import RunSession
from mnist_lit.training.runs import Run

HELP = """\
usage: mnist-lit detector [--config CONFIG] [--ckpt_path CHECKPOINT] [--SECTION.OPTION VALUE ...]

Trains the network that finds digits in pictures, on synthetic sheets.

  --ckpt_path CHECKPOINT  goes on with a run: last, for the newest one; auto, for that one if it is
                          unfinished, and else a new one; or a checkpoint's path
  --print_config          prints the whole config that the other options make, and ends

Options are those of fit, but for the model's and the data's. The packaged config is

{config}
Beyond it:

  --trainer.help          all options of Lightning's Trainer"""


class DetectorRun(RunSession):
    """A run that trains a detector."""

    kind = runs.DETECTOR

    def evaluate_run(self, run: Run) -> None:
        assert isinstance(self.model, LitDetector)
        assert isinstance(self.data, SheetDataModule)
        finish(run, self.trainer, self.model, self.data, self.facts())


class DetectorCLI(CLI):
    """`fit` with a detector and synthetic sheets."""

    task = LitDetector
    data_module = SheetDataModule
    kind = runs.DETECTOR

    def fit_network_to_data(self, parser: LightningArgumentParser) -> None:
        """Leave the network as it is: all sheets have one size."""

    def fit(self, model: BaseTask, datamodule: MNISTDataModule, ckpt_path: str | None) -> None:
        limits.check_one_process(self.trainer, "detector")
        super().fit(model, datamodule, ckpt_path)

    def session(self, model: BaseTask, data: MNISTDataModule) -> RunSession:
        command = ["detector", *self.arguments[1:]]
        return DetectorRun(self.trainer, model, data, self.config_yaml, command, self.tensorboard)


def main(args: Sequence[str]) -> int:
    """Train a detector; `args` begins with the command's name."""
    if {"-h", "--help"} & set(args):
        config = Path(config_files.packaged(config_files.DETECTOR)).read_text(encoding="utf-8")
        print(HELP.format(config=textwrap.indent(config, "    ")))
        return 0
    if "--trainer.help" in args:
        DetectorCLI(["fit", "--help"])
    cli = DetectorCLI(with_config(["fit", *args[1:]], runs.DETECTOR))
    if cli.run:
        show(cli.run)
    return 0
