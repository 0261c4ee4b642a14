"""The web page and its server."""

from pathlib import Path

PAGE = Path(__file__).parent / "page"
