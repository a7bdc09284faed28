"""Which rows of a batch have the same source: the beams of an input, for example."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np
import torch

# Rows whose samples differ are different; those of the same samples are compared.
_SAMPLES = 16


class Sources(NamedTuple):
    """Attributes:
    of_rows: the source of each row, numbered by their first rows.
    firsts: the first row of each source.
    """

    of_rows: List[int]
    firsts: List[int]

    def select(self, tensor: Any) -> Any:
        """One row of each source."""
        return tensor if len(self.firsts) == tensor.shape[0] else tensor[self.firsts]


def find_sources(states: Any, visible: Optional[np.ndarray[Any, Any]]) -> Sources:
    """Compares rows, and what is visible of them.

    Args:
        states: [rows, ...].
        visible: bool [rows, tokens]; None is all.
    """
    flat = states.detach().reshape(states.shape[0], -1)
    samples = flat[:, :: max(1, flat.shape[1] // _SAMPLES)].float().numpy()
    alike: Dict[bytes, List[int]] = {}  # sources by what was sampled of them
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
