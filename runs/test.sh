#!/usr/bin/env bash
# Run the test suite, from a fresh machine. Options are passed to pytest, for example: bash runs/test.sh -m slow
set -euo pipefail
cd "$(dirname "$0")/.."
bash runs/setup.sh --dev
# Two test processes share the cores: numeric libraries that each use all cores slow each other.
# The commands that tests start would compile this package anew each time.
unset PYTHONDONTWRITEBYTECODE
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec .venv/bin/python -m pytest --numprocesses 2 --dist loadgroup "$@"
