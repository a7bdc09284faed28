"""The table of a trial, and what our client promises: shared by trial.py and cluster.py.

A row has "servers", "scenario", "client" and what a client prints (driver.cc). Rows whose client begins with "cpp" are
our client's.
"""

import json
import pathlib

SLACK = 2.0  # seconds beyond a call's own time


def faults(row: dict) -> list[str]:
    """What our client promises and did not keep."""
    if not row["client"].startswith("cpp"):
        return []
    where = f"{row['servers']}, {row['scenario']}, {row['client']}"
    found = [f"{where}: {n} failed with {code}: {row['words'][code]}" for code, n in row["failed"].items()]
    if row["over"] > SLACK:
        found.append(f"{where}: a call took {row['over']:.1f} s more than its own time")
    return found


def table(rows: list[dict]) -> str:
    lines = ["| servers | what happens | client | calls | failed | longest call | longest gap |"]
    lines.append("|---|---|---|---:|---|---:|---:|")
    for row in rows:
        failed = ", ".join(f"{n} {code}" for code, n in sorted(row["failed"].items())) or "0"
        lines.append(
            f"| {row['servers']} | {row['scenario']} | {row['client']} | {row['calls']} | {failed} | "
            f"{row['longest']:.2f} s | {row['gap']:.2f} s |"
        )
    return "\n".join(lines)


def conclude(rows: list[dict], folder: pathlib.Path) -> int:
    """Writes results.json and results.md, prints the table and what is wrong, and returns the exit status."""
    (folder / "results.json").write_text(json.dumps(rows, indent=1))
    (folder / "results.md").write_text(table(rows) + "\n")
    print(f"\n{table(rows)}\n")
    wrong = [line for row in rows for line in faults(row)]
    print("\n".join(wrong) or "None of our client's calls failed or was late.")
    return 1 if wrong else 0
