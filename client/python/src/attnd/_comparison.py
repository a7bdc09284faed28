"""Compares several biases: each table's values at the same offsets, within and beyond the trained length."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np

from attnd._bias_sources import Source, find_source
from attnd._comparison_offsets import Comparison, described, of_sources
from attnd._comparison_svg import comparison_svg
from attnd._comparison_text import comparison_text
from attnd._number_text import shortest
from attnd.errors import InvalidArgument
from attnd.models import AlibiSlopes, Svg, T5Buckets, Table

Array = Any  # numpy.ndarray, whose generic form differs between versions of numpy

__all__ = ["BiasComparison", "ComparedBias", "compare_bias"]


@dataclass(frozen=True, eq=False)
class ComparedBias:
    """One of the compared biases.

    Attributes:
        source: its name in the comparison.
        description: its rule, direction and heads, in words.
        parameters_per_head: number of T5's buckets, 1 for ALiBi's slope, or the number of offsets with a value.
        saturates_at: the offset from which on all keys before the query get the same value; None if there is none.
        first_offset: the lowest offset that is shown: 0 if keys after the query are masked.
        buckets: int64 bucket of each offset from ``first_offset`` on; None if the rule has no buckets.
    """

    source: str
    description: str
    parameters_per_head: int
    saturates_at: Optional[int]
    first_offset: int
    buckets: Optional[Array]


class BiasComparison:
    """The values of several biases at the same offsets. A notebook shows it as a picture; ``print`` shows it as text.

    Attributes:
        sources: List[ComparedBias], the biases in the order given.
        heads: the heads that are compared, a panel for each.
        offsets: int64 [offsets], query position - key position, ascending.
        trained_length: the argument, or None.
        values: float32 [sources, heads, offsets]; NaN where a key after the query is masked, or where a source has no
            such head.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self.sources = [
            ComparedBias(
                source.label,
                described(source),
                source.table.parameters_per_head,
                source.table.saturates_at,
                comparison.first_offset(s),
                source.table.buckets(comparison.offsets_of(s)),
            )
            for s, source in enumerate(comparison.sources)
        ]
        self.heads = list(comparison.panels)
        self.trained_length = comparison.trained_length
        self.offsets = np.arange(comparison.min_offset, comparison.max_offset + 1)
        self.values = np.full((len(self.sources), len(self.heads), len(self.offsets)), np.nan, np.float32)
        for s in range(len(self.sources)):
            for p, panel in enumerate(self.heads):
                head = comparison.head_of(s, panel)
                if head is not None:
                    values = comparison.values(s, head)
                    self.values[s, p, -len(values) :] = values

    def text(self) -> str:
        """Describes each source; then, for each head, its values by ranges of offsets, and the resulting weights."""
        return comparison_text(self._comparison)

    def svg(self) -> Svg:
        """A standalone SVG document: a panel for each head with a curve for each source."""
        return Svg(comparison_svg(self._comparison))

    def to_json(self) -> str:
        """All values as JSON, each in the fewest digits that identify the float, as attnctl writes them."""
        held = self._comparison
        length = "null" if held.trained_length is None else held.trained_length
        head = (
            f'{{"min_offset":{held.min_offset},"max_offset":{held.max_offset},"trained_length":{length},'
            f'"axis":"{"log" if held.log_axis else "linear"}","heads":[{_listed(held.panels)}],\n"sources":['
        )
        entries = (("\n" if s == 0 else ",\n") + self._json_of(s) for s in range(len(held.sources)))
        return head + "".join(entries) + "]}\n"

    def _json_of(self, s: int) -> str:
        source, about = self._comparison.sources[s], self.sources[s]
        rule = source.table.rule
        name = "t5" if isinstance(rule, T5Buckets) else "alibi" if isinstance(rule, AlibiSlopes) else "per_offset"
        buckets = "null" if about.buckets is None else f"[{_listed(about.buckets.tolist())}]"
        rows = (self._row(s, panel) for panel in self.heads)
        return (
            f' {{"source":{_quoted(source.label)},"description":{_quoted(about.description)},"rule":"{name}",'
            f'"bidirectional":{"true" if source.table.bidirectional else "false"},\n'
            f'  "parameters_per_head":{about.parameters_per_head},'
            f'"saturates_at":{"null" if about.saturates_at is None else about.saturates_at},'
            f'"first_offset":{about.first_offset},\n  "buckets":{buckets},\n  "values":[{",".join(rows)}]}}'
        )

    def _row(self, s: int, panel: int) -> str:
        head = self._comparison.head_of(s, panel)
        if head is None:
            return "\n   null"
        return "\n   [" + ",".join(map(shortest, self._comparison.values(s, head))) + "]"

    def _repr_svg_(self) -> str:
        return str(self.svg())

    def _repr_html_(self) -> str:
        numbers = html.escape(self.text())
        return f"{self.svg()}<details><summary>Numbers</summary><pre>{numbers}</pre></details>"

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        names = ", ".join(source.source for source in self.sources)
        return f"BiasComparison({names}: {len(self.heads)} heads, offsets {self.offsets[0]} to {self.offsets[-1]})"


def compare_bias(
    sources: Sequence[Union[str, Table, Tuple[str, Table]]],
    *,
    client: Any = None,
    heads: Optional[Sequence[int]] = None,
    max_offset: Optional[int] = None,
    trained_length: Optional[int] = None,
    axis: str = "auto",
    mask: Optional[str] = None,
) -> BiasComparison:
    """Compares the values of biases at the same offsets, within and beyond the trained length: T5's buckets (Raffel et
    al. 2020), ALiBi's slopes (Press, Smith and Lewis 2022) and values per offset.

    A source is a :class:`Table`, a pair of a name and a Table, or a string:

    - ``"alibi:8"``: ALiBi with the paper's slopes for 8 heads; ``"alibi:8,bidirectional"``.
    - ``"t5:32,128"``: 32 buckets, max distance 128, with random values, uniform in [-1, 1). Options follow, separated
      by commas: ``bidirectional``, ``heads=8``, ``seed=1``. ``"t5:4,5@0.1,0.2,0.3,0.4"`` gives the values: by bucket,
      then head.
    - ``"offsets:0@0.5,0.25"``: a value for each offset from 0 on.
    - ``"file:tables.json"``, ``"file:tables.json:encoder"``: a JSON file in the format of docs/models.md.
    - ``"t5-tiny"``, ``"t5-tiny:encoder"``: a loaded model, for which ``client`` is needed; also ``"model:t5-tiny"``.

    A source that ends in ``#3`` compares only its head 3 with all heads of the others. Without a loaded model no server
    is needed. The text, the picture and the JSON are those of ``attnctl bias compare``.

    Args:
        sources: 1 to 8 sources.
        client: a :class:`Client`, if a source is a loaded model.
        heads: heads to compare, a panel for each; None is all.
        max_offset: the largest offset shown, in tokens; None is four times the longest max distance, table or
            trained length.
        trained_length: in tokens; marked in the output, which distinguishes offsets within and beyond it.
        axis: "linear" or "log", the scale of the picture's offsets; "auto" is log beyond 64.
        mask: "causal" leaves out keys after the query, "none" shows them for all tables, None only for bidirectional
            tables.

    Raises:
        InvalidArgument: a string cannot be parsed, a table is invalid, or an argument is out of range (a ValueError).
        NotFound: no such model, table or file.

    Example:
        >>> compared = attnd.compare_bias(["alibi:8", "t5:32,128,heads=8"], trained_length=128)
        >>> compared.values.shape
        (2, 8, 513)
        >>> compared.sources[1].saturates_at
        113
        >>> compared.svg().startswith("<svg")
        True
    """
    if isinstance(sources, (str, Table)):
        sources = [sources]
    if axis not in ("auto", "linear", "log"):
        raise InvalidArgument.of("axis", "auto, linear or log", repr(axis)[:80])
    if mask not in (None, "causal", "none"):
        raise InvalidArgument.of("mask", "causal or none", repr(mask)[:80])
    found: List[Source] = [find_source(source, client) for source in sources]
    return BiasComparison(of_sources(found, heads, max_offset, trained_length, axis, mask))


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
