#!/bin/bash
# One stage of the paper's tables with full-size towers, done within ten minutes, for a GPU that is lent for as
# long. The same command again goes on, until it says that all runs are done:
#   bash train/launch/reproduce_stage.sh OUT [--tables 1 3] [other flags of train/reproduce.py]
# The first stage makes the recordings. Each stage ends by packing what the tables need, without recordings and
# weights, into OUT.tar.gz: on another machine, unpacked beside OUT's name, it goes on from there, where a
# pretraining that a row still needs is made again.

set -euo pipefail
output=$1
shift

status=0
timeout --signal TERM --kill-after 20 560 python train/reproduce.py \
    --recipe train/recipes/reproduce_full_size.yaml --output "$output" --minutes 8 "$@" || status=$?
tar -C "$(dirname "$output")" --exclude data --exclude checkpoints --exclude locks --exclude '*.safetensors' \
    -czf "$output.tar.gz" "$(basename "$output")"
if [ "$status" -eq 124 ]; then # its time was up; what it was at goes on from its checkpoint
    status=0
fi
exit "$status"
