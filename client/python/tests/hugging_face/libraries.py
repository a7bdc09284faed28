"""torch and transformers; the modules of tests that import this are skipped where they are missing or too old."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch: Any = pytest.importorskip("torch")
    transformers: Any = pytest.importorskip("transformers", minversion="5.15")
