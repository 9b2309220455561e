#!/bin/sh
# The shipped base, made on this machine's processor: run_cpu.sh WORK CORPUS DATASETS MINUTES [OPTIONS of make_base.py]
# A checkpoint every five minutes; the same command goes on. MINUTES is of the training stages.
set -eu
work=$1 corpus=$2 data=$3 minutes=$4
shift 4
here=$(cd "$(dirname "$0")/../.." && pwd)
export JAX_PLATFORMS=cpu PYTHONUNBUFFERED=1 PYTHONPATH="$here"
exec "${PYTHON:-$here/.venv/bin/python}" "$here/scripts/make_base.py" "$work" \
    --corpus "$corpus" --data "$data" --minutes "$minutes" --checkpoint-every-minutes 5 "$@"
