"""Files that come through the browser."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from engine.results import FormatError

Loaded = TypeVar("Loaded")


def load_upload(name: str, content: bytes, load: Callable[[Path], Loaded]) -> Loaded:
    """Load what a browser has sent, by a function that takes a path.

    Raises:
        FormatError: As the function does, with the file under its own name.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"  # what a browser calls a file may be no name of one here
        path.write_bytes(content)
        try:
            return load(path)
        except FormatError as error:
            raise FormatError(str(error).replace(str(path), Path(name).name)) from error
