"""The example that summarises a text by itself and attached."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from conftest import ROOT

from .libraries import transformers  # noqa: F401 - skipped without it

SCRIPT = ROOT / "examples" / "python" / "summarise.py"
TEXT = SCRIPT.with_name("long_text.txt")
SOURCE = pathlib.Path(__file__).resolve().parents[2] / "src"


@pytest.mark.skipif(not SCRIPT.exists(), reason="the example is not beside the package")
@pytest.mark.skipif(not os.environ.get("ATTND_TRAINED_T5"), reason="ATTND_TRAINED_T5 names no trained checkpoint")
def test_the_example_makes_the_same_tokens(tmp_path: pathlib.Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT.read_text(encoding="utf-8")[:600], encoding="utf-8")
    arguments = ["--model", os.environ["ATTND_TRAINED_T5"], "--text", str(text), "--new_tokens", "12"]
    # torch's threads wait by spinning; see one_thread.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
    found = subprocess.run(
        [sys.executable, "-B", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "601 tokens summarised in 12 (beams: 4)" in found.stdout
    assert "all tokens are the same" in found.stdout
    assert "attention computed by attnd" in found.stdout


@pytest.mark.skipif(not SCRIPT.exists(), reason="the example is not beside the package")
@pytest.mark.parametrize(
    ("files", "vocab_size", "expected"),
    [
        ([], 260, True),
        ([], 384, True),
        ([], 32128, False),
        (["tokenizer_config.json"], 384, False),
        (["spiece.model"], 300, False),
    ],
)
def test_which_models_take_bytes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, files: list[str], vocab_size: int, expected: bool
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import summarise

    for name in ["config.json", "model.safetensors", *files]:
        (tmp_path / name).touch()
    assert summarise.is_byte_level(str(tmp_path), vocab_size) is expected
    assert not summarise.is_byte_level("google/byt5-small", 384)
    assert summarise.Bytes().encode("aé") == [100, 198, 172, 1]
    assert summarise.Bytes().decode([0, 100, 198, 172, 1, 259]) == "aé"
