"""Finds the rows of a batch that have the same source, for example the beams of an input."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np
import torch

# Samples taken of each row. Rows whose samples differ are different; rows with equal samples are compared in full.
_SAMPLES = 16


class Sources(NamedTuple):
    """Attributes:
    of_rows: the source of each row; sources are numbered in the order of their first rows.
    firsts: the first row of each source.
    """

    of_rows: List[int]
    firsts: List[int]

    def select(self, tensor: Any) -> Any:
        """One row of each source."""
        return tensor if self.firsts == list(range(tensor.shape[0])) else tensor[self.firsts]


def find_sources(states: Any, visible: Optional[np.ndarray[Any, Any]]) -> Sources:
    """Finds the sources: rows with equal states and equal visibility share one.

    Args:
        states: [rows, ...].
        visible: bool [rows, tokens]; None is all.
    """
    flat = states.detach().reshape(states.shape[0], -1)
    samples = flat[:, :: max(1, flat.shape[1] // _SAMPLES)].float().numpy()
    alike: Dict[bytes, List[int]] = {}  # sources by their samples
    of_rows: List[int] = []
    firsts: List[int] = []
    for row in range(flat.shape[0]):
        key = samples[row].tobytes() + (b"" if visible is None else visible[row].tobytes())
        known = alike.setdefault(key, [])
        source = next((one for one in known if torch.equal(flat[row], flat[firsts[one]])), None)
        if source is None:
            source = len(firsts)
            firsts.append(row)
            known.append(source)
        of_rows.append(source)
    return Sources(of_rows, firsts)
