#!/bin/sh
# Attacks attnd as docs/reliability.md describes, and prints the page's table: what its callers lose and what it holds,
# with each protection and without it.
#   bench/reliability.sh --all [--write] [--before ATTND]     all rows: half an hour on a machine that does nothing else
#   bench/reliability.sh NAME...                              some rows; --list names them
# Needs the built targets attnd, attnd_callers and attnd_sessions, and Python 3.11 (nothing beside its standard library). Everything runs on
# loopback, against servers that it starts and ends itself. Options: bench/reliability.sh --help.
set -eu
exec "${PYTHON:-python3}" -B "$(dirname "$0")/reliability/table.py" "$@"
