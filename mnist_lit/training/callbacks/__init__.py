"""Callbacks of every training; each works with any LightningModule unless it says otherwise."""

from mnist_lit.training.callbacks.best_checkpoint import BestCheckpoint as BestCheckpoint
from mnist_lit.training.callbacks.early_stopping import StopEarly as StopEarly
from mnist_lit.training.callbacks.last_checkpoint import Interrupted as Interrupted
from mnist_lit.training.callbacks.last_checkpoint import LastCheckpoint as LastCheckpoint
from mnist_lit.training.callbacks.progress import Progress as Progress
from mnist_lit.training.callbacks.random_state import RandomState as RandomState
from mnist_lit.training.callbacks.training_log import TrainingLog as TrainingLog
