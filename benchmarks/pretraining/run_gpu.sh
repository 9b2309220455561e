#!/bin/sh
# The shipped base's weights, made on a GPU machine without a network:
#   run_gpu.sh PREPARED OUT MINUTES [OPTIONS of make_base.py]
# PREPARED is a folder, or a .tar.xz of one, with what was made before on a machine that has the text:
#   make_base.py WORK --stages collect --data DATASETS
#   chorus pretrain WORK/pretrained --corpus books.txt.gz --prepare-only     (the pieces of the plan)
#   tar -cJf prepared.tar.xz -C WORK pretrained tasks
# Ids travel as packed u16. Everything is written below $WORK, which a warm machine keeps, so that a second call goes
# on. What ships is put into OUT in parts of 15 MiB: cat part-* | tar -x. With --parts-of kept/model-010 (or another
# checkpoint of the figures) a later call brings that.
set -eu
prepared=$1 out=$2 minutes=$3
shift 3
here=$(cd "$(dirname "$0")/../.." && pwd)
work=${WORK:-/tmp/chorus-base}
python=${PYTHON:-python3}
if [ ! -d "$work/pretrained" ]; then
    mkdir -p "$work"
    if [ -d "$prepared" ]; then cp -R "$prepared/." "$work/"; else "$python" -m tarfile -e "$prepared" "$work"; fi
fi
export PYTHONUNBUFFERED=1 PYTHONPATH="$here"
exec "$python" "$here/scripts/make_base.py" "$work" --stages pretrain,adapt,mix,store --gpu \
    --minutes "$minutes" --checkpoint-every-minutes 2 --parts "$out" "$@"
