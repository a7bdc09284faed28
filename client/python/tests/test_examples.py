"""What the README and the notebook say works to the letter, with numpy and grpcio alone."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from conftest import ROOT

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
NOTEBOOK = ROOT / "examples" / "python" / "attend.ipynb"


def test_readme(
    attnd_binary: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found
    # It names the binary as one finds it after a build in the project's folder.
    (tmp_path / "build" / "server").mkdir(parents=True)
    (tmp_path / "build" / "server" / "attnd").symlink_to(attnd_binary)
    monkeypatch.chdir(tmp_path)
    exec(compile(found.group(1), str(README), "exec"), {})
    shown = capsys.readouterr().out
    assert shown.startswith("(1, 8, 512, 64) Model(t5-tiny version 1: decoder, encoder; 8 heads)\n")
    assert "u2" in shown


@pytest.mark.skipif(not NOTEBOOK.exists(), reason="the notebook is not beside the package")
def test_notebook(attnd_binary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell, in the notebook's folder; scripts/python_notebook.sh does it in Jupyter."""
    monkeypatch.setenv("ATTND_BINARY", attnd_binary)
    monkeypatch.chdir(NOTEBOOK.parent)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    names: dict[str, object] = {}
    for at, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, code cell {at}", "exec"), names)
