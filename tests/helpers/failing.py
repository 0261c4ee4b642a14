"""Loggers that fail."""

from collections.abc import Mapping

from pytorch_lightning.loggers import Logger


class AtTheEnd(Logger):
    """Takes what a training logs, then neither the results nor its end."""

    @property
    def name(self) -> str:
        return "failing"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, params: object) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if "test/acc" in metrics:
            raise ConnectionError("the server has gone")

    def finalize(self, status: str) -> None:
        raise ConnectionError("the server has gone")
