#!/bin/sh
# The shipped base's weights, made on a GPU machine without a network:
#   run_gpu.sh PREPARED OUT MINUTES [OPTIONS of make_base.py]
# PREPARED is what `chorus pretrain FOLDER --prepare-only` and the stage `collect` made, laid out as
#   PREPARED/pretrained/{spiece.model,tokens/}, PREPARED/tasks/ (ids as packed u16; below 64 MB with --max-tokens)
# and may hold what an earlier call brought back. Everything is written below $WORK, which a warm machine keeps, so
# that a second call goes on; what ships is put into OUT in parts of 15 MiB: cat part-* | tar x.
set -eu
prepared=$1 out=$2 minutes=$3
shift 3
here=$(cd "$(dirname "$0")/../.." && pwd)
work=${WORK:-/tmp/chorus-base}
mkdir -p "$work"
cp -Rn "$prepared/." "$work/"
export PYTHONUNBUFFERED=1 PYTHONPATH="$here"
exec "${PYTHON:-python3}" "$here/scripts/make_base.py" "$work" --stages pretrain,adapt,mix,store --gpu \
    --minutes "$minutes" --checkpoint-every-minutes 2 --parts "$out" "$@"
