"""JSON that other processes may read at any moment."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, contents: Any) -> None:
    """Writes aside and renames, so that the file is whole whenever it is read; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    aside.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, path)
