"""Attacks a server of its own, one row of docs/reliability.md for each attack, with the protection and without it.

Run it through bench/reliability.sh. A row that has a flag runs once as attnd comes and once with the protection turned
off. A protection without a flag is compared with --before, an attnd of before it.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench/peers"))

import attnd_server  # noqa: E402
import machine  # noqa: E402
import measures  # noqa: E402
import page  # noqa: E402
import rows  # noqa: E402
from attnd_server import NotMeasured  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="rows to measure, or the first words of their names; see --list")
    parser.add_argument("--all", action="store_true", help="every row")
    parser.add_argument("--list", action="store_true", help="print the rows' names and end")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--before", type=pathlib.Path, help="an attnd without the protections that have no flag")
    parser.add_argument("--seconds", type=float, default=30, help="length of an attack that takes its time")
    parser.add_argument(
        "--sides", choices=("both", "on", "off"), default="both", help="with protection, without, or both"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="put the table into docs/reliability.md; without --all the rows measured take the place of those there",
    )
    parser.add_argument("--allow-dirty", action="store_true", help="write the page although the tree has changes")
    parser.add_argument("--smoke", action="store_true", help="a test of the programs themselves; no times are judged")
    return parser.parse_args()


PAGE = ROOT / "docs/reliability.md"
HEADINGS = ["row", "what", "protection on", "protection off", "goal", "commit"]


@dataclasses.dataclass
class Side:
    """A server that a row is measured at, or why it is not."""

    binary: pathlib.Path | None
    flags: list[str]
    missing: str = ""


def sides(row: rows.Row, options: argparse.Namespace) -> tuple[Side, Side]:
    """With the protection, and without it."""
    binary = options.build / "server/attnd"
    known = [flag for flag in row.off if attnd_server.knows(binary, rows.name_of(flag))]
    if row.off and not known:
        return Side(None, [], f"this attnd has no --{rows.name_of(row.off[0])}"), Side(binary, [])
    if row.off:
        return Side(binary, row.on), Side(binary, known)
    if options.before is None:
        return Side(binary, []), Side(None, [], "no --before")
    return Side(binary, []), Side(options.before, [])


def cell(row: rows.Row, side: Side, options: argparse.Namespace) -> str:
    if side.binary is None:
        return f"not measured ({side.missing})"
    bench = measures.Bench(side.binary, options.build, side.flags, options.seconds)
    try:
        outcome = row.measure(bench)
    except (NotMeasured, OSError) as error:
        return f"not measured ({error})"
    return f"{outcome.text} {'✓' if outcome.good else '✗'}"


def chosen(options: argparse.Namespace) -> list[rows.Row]:
    names = {row.name for row in rows.ROWS}

    def meant(row: rows.Row, name: str) -> bool:
        return row.name == name if name in names else row.name.startswith(name)

    found = [row for row in rows.ROWS if options.all or any(meant(row, name) for name in options.names)]
    if not found:
        sys.exit("no row of such a name: see --list" if options.names else "name rows, or give --all; see --list")
    return found


def written(path: pathlib.Path) -> list[list[str]]:
    """The rows that the page has."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("| `")]
    rows_there = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells for cells in rows_there if len(cells) == len(HEADINGS)]


def main() -> None:
    options = arguments()
    if options.list:
        print("\n".join(f"{row.name:24} {row.what}" for row in rows.ROWS))
        return
    if options.smoke:
        sys.exit(rows.smoke(options.build))
    facts = machine.with_packages()
    if options.write:
        machine.expect_clean(facts, options.allow_dirty)
    lines = []
    for row in chosen(options):
        cells: list[str] = []
        for name, side in zip(("on", "off"), sides(row, options)):
            cells.append(cell(row, side, options) if options.sides in ("both", name) else "–")
            print(f"{row.name}, protection {name}: {cells[-1]}", file=sys.stderr, flush=True)
        lines.append([f"`{row.name}`", row.what, *cells, row.goal, facts["attnd commit"]])
    body = page.table(["", ""], facts.items()) + "\n\n"
    if not options.write:
        print(body + page.table(HEADINGS, lines))
        return
    found = {line[0]: line for line in (written(PAGE) if not options.all else [])} | {line[0]: line for line in lines}
    every = [found[f"`{row.name}`"] for row in rows.ROWS if f"`{row.name}`" in found]
    page.replace_section(PAGE, "reliability table", body + page.table(HEADINGS, every))


if __name__ == "__main__":
    main()
