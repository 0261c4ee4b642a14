"""`Corrections`: digits that were read wrong, kept with their truth as a folder of pictures."""

import hashlib
import re
from pathlib import Path

from PIL import Image

from mnist_lit.errors import UserError
from mnist_lit.files import atomic_write
from mnist_lit.reading.digit_image import IMAGE_PX

MAX_CORRECTIONS = 10_000  # files of a folder
NAME = re.compile(r"[0-9a-f]{16}")


class Corrections:
    """A sub-folder for each digit, with a PNG for each crop as the network sees it.

    A file is named by its pixels, so the same crop is there once; nothing else is overwritten.

    Args:
        folder: is made if it does not exist.

    Raises:
        UserError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--collect {folder}: {error.strerror}") from error

    def keep(self, pixels: bytes, digit: int) -> str:
        """Keep a crop with its truth, in place of another truth of the same crop.

        Args:
            pixels: of the crop, 28x28 uint8, ink 255.
            digit: the truth, 0 to 9.

        Returns:
            The name by which it can be taken back.

        Raises:
            ValueError: it is not 28x28 bytes, not a digit, or the folder is full.
        """
        if len(pixels) != IMAGE_PX**2 or not 0 <= digit <= 9:
            raise ValueError("a correction is 28x28 bytes and a digit")
        name = hashlib.sha256(pixels).hexdigest()[:16]
        kept = [path for path in self.folder.glob("[0-9]/*.png") if path.stem != name]
        if len(kept) >= MAX_CORRECTIONS:
            raise ValueError(f"{MAX_CORRECTIONS:,} corrections are kept already")
        file = self.folder / str(digit) / f"{name}.png"
        with atomic_write(file) as path:
            Image.frombytes("L", (IMAGE_PX, IMAGE_PX), pixels).save(path, format="PNG")
        for other in self._files(name) - {file}:
            other.unlink(missing_ok=True)
        return name

    def take_back(self, name: str) -> None:
        """Remove a correction, if it is there."""
        if NAME.fullmatch(name):
            for path in self._files(name):
                path.unlink(missing_ok=True)

    def _files(self, name: str) -> set[Path]:
        return set(self.folder.glob(f"[0-9]/{name}.png"))
