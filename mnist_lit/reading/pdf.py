"""Pages of a PDF as pictures, by the optional pypdfium2."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from PIL import Image

from mnist_lit.reading.limits import MAX_PIXELS_AT_ONCE, PictureError, too_large

RENDERED_PX = 3200  # longest side of a rendered page: about 270 dots per inch of A4
_PDFIUM = threading.Lock()  # PDFium must not be called by two threads at once


def is_pdf(content: bytes) -> bool:
    """Tell a PDF by its header, which may begin anywhere in the first 1,024 bytes."""
    return b"%PDF-" in content[:1024]


def num_pages(file: BinaryIO) -> int:
    """Count the pages of a PDF.

    Raises:
        PictureError: pypdfium2 is not installed, or the PDF is protected by a password.
    """
    with _document(file) as pdf:
        return len(pdf)


def render(file: BinaryIO, page_idx: int) -> Image.Image:
    """Render a page as a viewer shows it, with annotations and filled fields.

    Raises:
        PictureError: as `num_pages`, or an image in it has too many pixels.
    """
    with _document(file) as pdf:
        pdf.init_forms()
        page = pdf[page_idx]
        for found in page.get_objects():
            if hasattr(found, "get_px_size"):
                width, height = found.get_px_size()
                if width * height > MAX_PIXELS_AT_ONCE:
                    raise too_large(MAX_PIXELS_AT_ONCE)
        bitmap = page.render(scale=RENDERED_PX / max(page.get_size()), rev_byteorder=True)
        image: Image.Image = bitmap.to_pil().convert("RGB")  # a copy: the bitmap ends with the PDF
        return image


@contextmanager
def _document(file: BinaryIO) -> Iterator[Any]:
    try:
        import pypdfium2
    except ImportError:
        raise PictureError("is a PDF: pip install 'mnist-lit[pdf]' to read it") from None
    with _PDFIUM:
        try:
            pdf = pypdfium2.PdfDocument(file)
        except pypdfium2.PdfiumError as error:
            if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
                raise PictureError("is protected by a password: remove it first") from None
            raise
        with pdf:
            yield pdf
