"""Parses the strings that name a bias table, as attnctl does (src/bias/source_words.cc), and finds the tables."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from attnd._bias_rules import MAX_VALUES, HeldTable, held, paper_slopes, per_offset, random_values, t5
from attnd.errors import Error, InvalidArgument, NotFound
from attnd.models import AlibiSlopes, PerOffset, T5Buckets, Table

_MAX_LABEL, _MAX_HEADS, _MAX_DIGITS = 64, 4096, 18
_KINDS = ("model", "file", "alibi", "t5", "offsets")
_NUMBER = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_TABLE_NAME = re.compile(r"(?:decoder|encoder)(?:\.[0-9]+)?", re.ASCII)
_LARGEST = float(np.finfo(np.float32).max)


class Source(NamedTuple):
    """A bias to compare.

    Attributes:
        label: its name in the comparison.
        note: where its values come from; may be empty.
        table: the bias table.
        head: the head to compare; None: all heads.
    """

    label: str
    note: str
    table: HeldTable
    head: Optional[int]


class _Words(NamedTuple):
    label: str
    kind: str
    name: str  # a model's name, a path, or the rule's parameters
    table: str
    head: Optional[int]


def find_source(source: Any, client: Any) -> Source:
    """Finds the table of a source: a string, an attnd.Table, or a pair of a name and a Table.

    Raises InvalidArgument if the string cannot be parsed, NotFound for an unknown model or table, and what
    ``client.get_model`` raises.
    """
    if isinstance(source, Table):
        return Source(shown(repr(source), _MAX_LABEL), "", held(source), None)
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], Table):
        label = shown(str(source[0]), _MAX_LABEL)
        try:
            return Source(label, "", held(source[1]), None)
        except Error as error:
            raise _under(label, error) from None
    if not isinstance(source, str):
        raise InvalidArgument.of("sources", "words, an attnd.Table, or a name and a Table", repr(source)[:80])
    words = _read(source)
    tables: Dict[str, Table] = {}
    version = ""
    if words.kind == "model":
        tables, version = _loaded(words, client)
    elif words.kind == "file":
        tables = _read_file(words.name)
    try:
        table, note = _made(words, tables)
    except Error as error:
        raise _under(words.label, error) from None
    return Source(words.label, note + version, table, words.head)


def shown(text: str, max_bytes: int) -> str:
    """Escapes and shortens text to at most `max_bytes` printable bytes, as src/errors/shown.cc does."""
    result, end_if_cut = b"", 0
    for character in text:
        raw = character.encode("utf-8", "surrogateescape")
        printable = character >= " " and character != "\x7f" and not "\ud800" <= character <= "\udfff"
        as_shown = raw if printable else b"\\x" + raw.hex().encode()
        if len(result) + len(as_shown) > max_bytes:
            return result[:end_if_cut].decode() + "..."
        result += as_shown
        if len(result) + 3 <= max_bytes:
            end_if_cut = len(result)
    return result.decode()


def _under(label: str, error: Error) -> Error:
    """The same error with the source's label before its field."""
    if not error.field:
        return error
    return type(error).of(f"{label}: {error.field}", error.expected, error.got)


def _read(text: str) -> _Words:
    label = shown(text, _MAX_LABEL)
    head = None
    before, hash_sign, behind = text.rpartition("#")
    if hash_sign and (_all_digits(behind) or not text.startswith("file:")):
        try:
            head = _whole("head", behind)
        except Error as error:
            raise _under(label, error) from None
        text = before
    kind, colon, name = text.partition(":")
    if not colon or kind not in _KINDS:
        kind, name = "model", text
    table = ""
    if kind in ("model", "file"):
        start, colon, last = name.rpartition(":")
        if colon and _TABLE_NAME.fullmatch(last):
            name, table = start, last
    if not name:
        raise InvalidArgument.of(f"{label}: source", "a name behind the colon, or a model's", "nothing")
    if kind == "model" and ":" in name:
        expected = "alibi:HEADS, t5:BUCKETS,MAX, offsets:MIN@VALUES, file:PATH, MODEL or MODEL:TABLE"
        raise InvalidArgument.of(f"{label}: source", expected, f'"{text}"')
    if kind == "t5" and _TABLE_NAME.fullmatch(name):
        expected = "t5:BUCKETS,MAX, or model:t5:TABLE for a model named t5"
        raise InvalidArgument.of(f"{label}: source", expected, f'"{text}"')
    return _Words(label, kind, name, table, head)


def _made(words: _Words, tables: Dict[str, Table]) -> Tuple[HeldTable, str]:
    """Makes the table, and the note that says where its values come from. ``tables`` are the model's or file's."""
    if words.kind == "alibi":
        return _alibi(words.name), ""
    if words.kind == "t5":
        return _t5(words.name)
    if words.kind == "offsets":
        return _offsets(words.name), ""
    name = _table_name(tables, words.table, words.name)
    return held(tables[name]), f"table {name}"


def _loaded(words: _Words, client: Any) -> Tuple[Dict[str, Table], str]:
    """The tables of a loaded model, and its version as text."""
    if not hasattr(client, "get_model"):
        got = "None" if client is None else f"a {type(client).__qualname__}"
        raise InvalidArgument.of("client", f"an attnd.Client of the server that has {words.label}", got)
    model = client.get_model(words.name, include_values=True)
    if not hasattr(model, "tables"):
        model.close()  # a coroutine
        raise InvalidArgument.of("client", "an attnd.Client", f"a {type(client).__qualname__}")
    return model.tables, f", version {model.version}"


def _table_name(tables: Dict[str, Table], name: str, model: str) -> str:
    """The name of the table that ``name`` selects; without a name, the decoder's, or the only table."""
    for candidate in (name, name.split(".", maxsplit=1)[0]) if name else ("decoder", "decoder.0"):
        if candidate in tables:
            return candidate
    if not name and len(tables) == 1:
        return next(iter(tables))
    got = f'"{name}"' if name else "none, and the model has no decoder's"
    raise NotFound.of("table", f'one of model "{model}"\'s: {", ".join(sorted(tables))}', got)


class _RuleWords:
    """Parses a rule's parameters: "32,128,heads=8,seed=1" or "4,5@0.1,0.2,0.3,0.4". ``fields`` names the leading
    numbers."""

    def __init__(self, text: str, fields: Tuple[str, ...]) -> None:
        sizes, at, values = text.partition("@")
        words = sizes.split(",")
        self.sizes = [_whole(field, words[i] if i < len(words) else "") for i, field in enumerate(fields)]
        self.bidirectional = False
        self.numbers: Dict[str, int] = {}
        for word in words[len(fields) :]:
            if word == "bidirectional":
                self.bidirectional = True
                continue
            name, _, number = word.partition("=")
            if name not in ("heads", "seed"):
                raise InvalidArgument.of("option", "bidirectional, heads=N or seed=N", f'"{word}"')
            value = _whole(name, number)
            if value < (0 if name == "seed" else 1):
                raise InvalidArgument.of(name, "0 or more" if name == "seed" else "at least 1", str(value))
            self.numbers[name] = value
        self.values = _numbers(values) if at else None

    def refuse(self, *, heads: bool, seed: bool, values: bool) -> None:
        if not heads and "heads" in self.numbers:
            raise InvalidArgument.of("heads", "none here", str(self.numbers["heads"]))
        if not seed and "seed" in self.numbers:
            raise InvalidArgument.of("seed", "none beside values" if values else "none here", str(self.numbers["seed"]))
        if not values and self.values is not None:
            raise InvalidArgument.of("values", "none here", f"{len(self.values)} of them")


def _alibi(text: str) -> HeldTable:
    rule = _RuleWords(text, ("heads",))
    rule.refuse(heads=False, seed=False, values=False)
    heads = rule.sizes[0]
    if not 1 <= heads <= _MAX_HEADS:
        raise InvalidArgument.of("heads", f"1 to {_MAX_HEADS}", str(heads))
    return HeldTable(AlibiSlopes(paper_slopes(heads)), rule.bidirectional, heads, [])


def _t5(text: str) -> Tuple[HeldTable, str]:
    rule = _RuleWords(text, ("num_buckets", "max_distance"))
    rule.refuse(heads=True, seed=rule.values is None, values=True)
    heads, seed = rule.numbers.get("heads", 1), rule.numbers.get("seed", 0)
    buckets, max_distance = rule.sizes
    values, note = rule.values, ""
    if values is None:
        if buckets > 0 and buckets * heads > MAX_VALUES:
            raise InvalidArgument.of("num_buckets x heads", f"at most {MAX_VALUES}", f"{buckets} x {heads}")
        values, note = random_values(max(0, buckets) * heads, seed), f"random values, seed {seed}"
    return t5(buckets, max_distance, rule.bidirectional, values, heads), note


def _offsets(text: str) -> HeldTable:
    rule = _RuleWords(text, ("min_offset",))
    rule.refuse(heads=True, seed=False, values=True)
    if rule.bidirectional:
        expected = "heads=N (a min_offset below 0 makes it bidirectional)"
        raise InvalidArgument.of("option", expected, '"bidirectional"')
    if rule.values is None:
        raise InvalidArgument.of("values", "a list after @", "none")
    return per_offset(rule.sizes[0], rule.values, rule.numbers.get("heads", 1))


def _all_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _whole(field: str, text: str) -> int:
    digits = text[1:] if text.startswith("-") else text
    if not _all_digits(digits) or len(digits) > _MAX_DIGITS:
        raise InvalidArgument.of(field, f"a whole number of at most {_MAX_DIGITS} digits", shown(f'"{text}"', 200))
    return int(text)


def _numbers(text: str) -> Any:
    values: List[float] = []
    for word in text.split(","):
        if not _NUMBER.fullmatch(word) or abs(float(word)) > _LARGEST:
            got = shown(f'"{word}"', 200)
            raise InvalidArgument.of(f"values[{len(values)}]", "a number that a float holds", got)
        values.append(float(word))
    return np.array(values, np.float32)


def _read_file(path: str) -> Dict[str, Table]:
    """The tables of a JSON file, in the format of docs/models.md."""
    if not path.endswith(".json"):
        expected = "a .json file (attnctl also reads checkpoints and GGUF files; a server loads them)"
        raise InvalidArgument.of("path", expected, f'"{path}"')
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        return {name: _table(entry) for name, entry in content["tables"].items()}
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, Error):
            raise
        raise InvalidArgument.of(
            "file", "tables in the form of docs/models.md", f"{type(error).__name__}: {error}"
        ) from None


def _table(entry: Dict[str, Any]) -> Table:
    kind, bidirectional = entry["rule"], bool(entry.get("bidirectional", False))
    if kind == "t5":
        values = np.array(entry["values"], np.float32)
        if "nb" in entry:  # the book counts its buckets from 0 to nb
            return Table(T5Buckets(entry["nb"] + 1, entry["dist_max"], values), bidirectional)
        return Table(T5Buckets(entry["num_buckets"], entry["max_distance"], values), bidirectional)
    if kind == "alibi":
        return Table(AlibiSlopes(np.array(entry["slopes"], np.float32)), bidirectional)
    if kind == "per_offset":
        return Table(PerOffset(entry["min_offset"], np.array(entry["values"], np.float32)), entry["min_offset"] < 0)
    raise InvalidArgument.of("rule", "t5, alibi or per_offset", f'"{kind}"')
