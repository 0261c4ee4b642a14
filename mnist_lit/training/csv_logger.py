"""`ContinuingCSVLogger`: a ``metrics.csv`` with each step once, also in a resumed run."""

import csv
from pathlib import Path

from pytorch_lightning import loggers
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from mnist_lit.errors import UserError
from mnist_lit.files import write_csv
from mnist_lit.training.run_folders import Run


class ContinuingCSVLogger(loggers.CSVLogger):
    """Lightning's CSVLogger, but it appends to the ``metrics.csv`` of a resumed run.

    Args:
        run: the run.
        purge_step: rows from this step on are removed before the first row is added, as
            TensorBoard's ``purge_step`` does; None: of a new run.
    """

    def __init__(self, run: Run, purge_step: int | None = None) -> None:
        super().__init__(run.folder.parent.parent, run.folder.parent.name, run.folder.name)
        self._experiment = _ContinuingWriter(self.log_dir, purge_step)


class _ContinuingWriter(ExperimentWriter):
    def __init__(self, log_dir: str, purge_step: int | None) -> None:
        super().__init__(log_dir)
        self.purge_step = purge_step

    def _check_log_dir_exists(self) -> None:
        """Keep existing files."""

    def save(self) -> None:
        if self.metrics and self.purge_step is not None:
            self._purge(Path(self.metrics_file_path), self.purge_step)
            self.purge_step = None
        super().save()

    def _purge(self, path: Path, step: int) -> None:
        rows = rows_before(path, step) if path.is_file() else []
        if rows:
            self.metrics_keys = list(rows[0])
            write_csv(path, rows, self.metrics_keys)
        else:
            path.unlink(missing_ok=True)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        write_csv(path, rows, fieldnames)


def rows_before(path: Path, step: int) -> list[dict[str, str]]:
    """Read the rows of a ``metrics.csv`` before a step, up to the first damaged one."""
    rows: list[dict[str, str]] = []
    try:
        text = path.read_text(encoding="utf-8")
        for row in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
            if None in row or None in row.values():  # too many cells, or too few
                break
            [float(value) for value in row.values() if value]
            if int(row["step"]) < step:
                rows.append(row)
    except (ValueError, KeyError, csv.Error):
        pass  # a power cut may leave anything
    return rows


def history(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Read ``metrics.csv``: metric -> (step, value) pairs, in the order of the steps.

    Raises:
        UserError: the file is damaged.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    if run.metrics.is_file():
        try:
            with run.metrics.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    for name, value in row.items():
                        if value:
                            found.setdefault(name, []).append((int(row["step"]), float(value)))
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(
                f"{run.metrics} is damaged: delete it, and there is a report without curves"
            ) from error
    return found
