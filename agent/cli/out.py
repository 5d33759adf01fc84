"""Where a verb writes its files: tried before the work, so that no work is done for nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def checked_out(folder: Path) -> Path:
    """Return `folder` when files can be written to it, or where it would have to be made; ValueError says why not."""
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(
            f"nothing can be written to {folder}: {error.strerror or error}. Name another folder with --out."
        ) from None
    return folder
