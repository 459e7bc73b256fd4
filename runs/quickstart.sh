#!/usr/bin/env bash
# Run the complete pipeline on synthetic data, from a fresh machine to a report. Options are passed
# to `glomerulab quickstart`, for example: bash runs/quickstart.sh --out my-first-run
set -euo pipefail
cd "$(dirname "$0")/.."
bash runs/setup.sh
exec .venv/bin/glomerulab quickstart "$@"
