"""Executes a notebook, and fails if a cell fails or its text output differs from the file's. For
scripts/python_notebook.sh and scripts/python_transformers.sh.

execute.py [--write] NOTEBOOK

The output of cells with the tag "varies", for example times, is not compared.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

MAX_BYTES = 64 << 10


def texts(notebook: Any) -> list[list[str]]:
    """The text output of each code cell. Pictures, and cells with the tag "varies", are not compared."""
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and "varies" in cell.metadata.get("tags", []):
            shown.append([])
        elif cell.cell_type == "code":
            shown.append([str(out.get("text") or out.get("data", {}).get("text/plain", "")) for out in cell.outputs])
    return shown


def main() -> int:
    write = sys.argv[1:2] == ["--write"]
    path = pathlib.Path(sys.argv[-1])
    notebook = nbformat.read(path, as_version=4)
    before = texts(notebook)
    resources = {"metadata": {"path": str(path.parent)}}
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's bars are not shown
    # The notebook's kernel listens on loopback, and would log a warning about it.
    arguments = ["--log-level=ERROR"]
    client = NotebookClient(notebook, timeout=600, record_timing=False, resources=resources, extra_arguments=arguments)
    try:
        client.execute()
    except CellExecutionError as error:
        print(error)
        return 1
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of this machine's Python
    nbformat.validate(notebook)
    if write:
        nbformat.write(notebook, path)
        size = path.stat().st_size
        print(f"{path}: {size} bytes")
        return int(size > MAX_BYTES)
    after = texts(notebook)
    for at, (old, new) in enumerate(zip(before, after)):
        if old != new:
            print(f"{path}: code cell {at} shows\n  {new}\nand in the file it shows\n  {old}")
    return int(before != after)


if __name__ == "__main__":
    sys.exit(main())
