"""`Preprocessing`: from a whole picture to a network's input, as in its training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mnist_lit.reading.decode import Page, Picture, open_picture
from mnist_lit.reading.pixels import Range, to_uint8, upright

Fit = Literal["crop", "pad"]


@dataclass(frozen=True)
class Preprocessing:
    """From a picture of any size and mode to a network's input.

    Attributes:
        size: height and width of the input, in pixels.
        mode: Pillow's: L, grey, or RGB.
        fit: how a picture gets square: crop cuts the longer side at both ends; pad adds black.
        ranges: by `kind_of`, the values of grey pictures of more than 8 bits that become 0 and 255.
            They are the lowest and highest of the whole data set: brightness may be what tells
            classes apart.
    """

    size: int
    mode: str = "L"
    fit: Fit = "crop"
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @classmethod
    def scaled(cls, size: int, num_channels: int) -> Self:
        """Scale pictures to a size, cutting their ends off; grey for one channel, else RGB."""
        return cls(size, "L" if num_channels == 1 else "RGB")

    @property
    def num_channels(self) -> int:
        return 1 if self.mode == "L" else 3

    def __call__(self, picture: Picture | Page) -> Tensor:
        """Convert a picture, or one page of a file, to ``(C, size, size)`` uint8.

        Raises:
            PictureError: it cannot be read.
        """
        page = picture if isinstance(picture, Page) else Page(picture)
        with open_picture(page.picture, page.frame) as image:
            pixels = to_uint8(upright(image), self.ranges.get(kind_of(image)))
        whole = Image.fromarray(pixels).convert(self.mode)
        bring = ImageOps.pad if self.fit == "pad" else ImageOps.fit
        fitted = bring(whole, (self.size, self.size))
        values = torch.from_numpy(np.array(fitted)).view(self.size, self.size, -1)
        return values.permute(2, 0, 1).contiguous()


def kind_of(image: Image.Image) -> str:
    """Return the mode, one for all of 16 bits."""
    return image.mode[:4]
