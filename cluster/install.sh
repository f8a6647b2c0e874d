#!/usr/bin/env bash
# bash cluster/install.sh PYTHON VENV [runtime]: makes a virtual environment and installs requirements.txt into it.
# The one way in, of `make install` (and so of CI) and of the image; `runtime` leaves out what only tests need.
set -euo pipefail
cd "$(dirname "$0")/.."
python="$1" venv="$2" what="${3:-all}"
command -v "$python" >/dev/null || { echo "error: $python not found; set PYTHON=/path/to/python3.11"; exit 2; }

wanted="$(mktemp)"
trap 'rm -f "$wanted"' EXIT
case "$what" in
  all) cp requirements.txt "$wanted" ;;
  runtime) sed '/^# development and tests$/,$d' requirements.txt >"$wanted" ;;
  *) echo "error: unknown $what; leave it out, or say runtime"; exit 2 ;;
esac

"$python" -m venv "$venv"
"$venv/bin/pip" install --quiet pip==26.3 uv==0.13.9
# uv reads no pip configuration; where pip is told of a folder of wheels, tell uv of it too.
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
# Bytecode at once: Ray starts dozens of processes, and where PYTHONDONTWRITEBYTECODE is set each of them would compile
# torch and transformers again (30 s instead of 11 for one import, measured on two busy cores).
if ! "$venv/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" -r "$wanted"; then
  # Where pip's own configuration names an index, only pip finds it.
  echo "uv could not install requirements.txt (its reason is above); trying pip, which takes minutes"
  "$venv/bin/pip" install --quiet -r "$wanted"
fi
