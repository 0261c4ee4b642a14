"""A callback that records what a GPU does during a training.

fit --trainer.callbacks+=observer.GPUObserver --trainer.callbacks.path=gpu.json
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

FIRST_STEP, LAST_STEP = 60, 90  # between two log points of the default config (every 50 steps)


class GPUObserver(Callback):
    """Write peak GPU memory and the places where a step waits for the GPU to a JSON file.

    A step that waits (a "synchronization") keeps the GPU idle until the host has queued more work.

    Args:
        path: the file, written when training ends; nothing is written without a GPU.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._catcher = warnings.catch_warnings(record=True)
        self._caught: list[warnings.WarningMessage] | None = None
        self._waits: dict[str, int] = {}

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.strategy.root_device.type != "cuda":
            return
        if trainer.global_step == FIRST_STEP:
            self._caught = self._catcher.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        elif trainer.global_step == LAST_STEP and self._caught is not None:
            torch.cuda.set_sync_debug_mode("default")
            self._catcher.__exit__(None, None, None)
            for message in self._caught:
                if "synchron" in str(message.message):
                    place = f"{message.filename}:{message.lineno}"
                    self._waits[place] = self._waits.get(place, 0) + 1
            self._caught = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device = trainer.strategy.root_device
        if device.type != "cuda":
            return
        observed = {
            "peak_mib": torch.cuda.max_memory_allocated(device) / 2**20,
            "waits_per_step": sum(self._waits.values()) / (LAST_STEP - FIRST_STEP),
            "waits": self._waits,
        }
        self.path.write_text(json.dumps(observed, indent=2))
