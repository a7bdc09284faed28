"""attnd.transformers where torch or transformers cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def python(code: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120, env=env).stdout


def test_importing_takes_neither_along() -> None:
    said = python(
        "import sys, attnd.transformers\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('torch', 'transformers')])"
    )
    assert said == "[]\n"


@pytest.mark.parametrize("missing", ["torch", "transformers"])
@pytest.mark.parametrize("call", ["attach(None)", "detach(None)", "check(None, {})"])
def test_what_is_missing_is_said(missing: str, call: str) -> None:
    said = python(
        "import sys, types\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        f"sys.modules[{missing!r}] = None\n"
        "import attnd.transformers\n"
        f"try:\n    attnd.transformers.{call}\n"
        "except ImportError as error:\n    print(error)"
    )
    assert f"attnd.transformers needs {missing}" in said
    assert 'pip install "attnd[transformers]"' in said
