#!/usr/bin/env bash
# Checks the Python package, its tests, the examples and other Python tests and benchmarks with ruff, and the package with
# mypy --strict, and builds the package as for publication, in a virtual environment under build/ with the packages of
# client/python/requirements-lint.txt. Needs the network the first time.
#   scripts/python_lint.sh          fails if they find anything
#   scripts/python_lint.sh --fix    formats, and fixes what ruff can fix
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

case ${1:-} in '' | --fix) ;; *) sed -n '2,6p' "$0" >&2; exit 2 ;; esac
cd "$root"
venv=$(python_venv python-lint client/python/requirements-lint.txt)
others=()
for path in examples/python examples/clients tests/attnctl tests/clients bench/python_bench.py bench/reliability tests/checks/python_package.py; do
  [ ! -e "$path" ] || others+=("$path")
done
# Paths in ruff's settings are relative to the folder it runs in.
ruff() {
  (cd client/python && "$venv/bin/ruff" "$@" --no-cache .)
  "$venv/bin/ruff" "$@" --no-cache --config client/python/pyproject.toml "${others[@]}"
}
if [ "${1:-}" = --fix ]; then
  ruff check --quiet --fix || true
  ruff format --quiet
fi
ruff check --output-format=concise
ruff format --check
(cd client/python && "$venv/bin/mypy" --config-file pyproject.toml --cache-dir "$root/build/python-lint/mypy")
[ -z "${1:-}" ] || exit 0

# Builds the package from a copy, because setuptools leaves files beside the sources.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r client/python "$copy/attnd"
step "Building the package" "$root/build/logs/python-package.log" \
  "$venv/bin/python" -m build --no-isolation --outdir "$copy/dist" "$copy/attnd"
"$venv/bin/twine" check --strict "$copy"/dist/*
held=$("$venv/bin/python" -m zipfile -l "$copy"/dist/attnd-*.whl)
for file in attnd/py.typed attnd/v1/attention_pb2.pyi attnd/_guard.py; do
  grep -q "^$file " <<<"$held" || fail "the wheel has no $file"
done
