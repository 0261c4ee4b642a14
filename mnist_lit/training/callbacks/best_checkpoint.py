"""`BestCheckpoint`: keep the checkpoint of the best epoch."""

from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.callbacks import ModelCheckpoint

Metric = Literal["train/loss", "train/acc", "val/loss", "val/acc"]


def mode_of(monitor: str) -> Literal["min", "max"]:
    """Return min for a loss; max for an accuracy, and for epoch."""
    return "min" if monitor.endswith("loss") else "max"


class BestCheckpoint(ModelCheckpoint):
    """Keep the checkpoint of the epoch with the best validation score as ``best.ckpt``.

    Args:
        monitor: the metric that decides, the lowest loss or the highest accuracy; or epoch, for the
            last one.
    """

    def __init__(self, monitor: Metric | Literal["epoch"] = "val/loss") -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode_of(monitor),
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best score when the folder is not where it was; here it is kept if
        # the best checkpoint is there too, as in a run that was moved as a whole.
        best, score = Path(str(self.dirpath)) / "best.ckpt", state_dict["best_model_score"]
        # A run that was killed before last.ckpt was saved with the score saves best.ckpt again.
        if best.is_file() and score is not None:
            moved = {
                "dirpath": self.dirpath,
                "best_model_path": str(best),
                "kth_best_model_path": str(best),
                "best_k_models": {str(best): score},
            }
            super().load_state_dict({**state_dict, **moved})
