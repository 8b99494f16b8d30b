#!/usr/bin/env bash
# Copies a bucket to mirror-3, and takes a random disk away meanwhile: it is detached, or
# all its files are removed. Every byte is compared before a disk is back and after.
#
#   scripts/cp-rmdisk.sh [--rounds N] [--objects N] [--size S] [--seed N] [--job etl] [--strike PART] [--endpoint LIST] ...
#
# --help lists the flags, docs/failures.md explains them. Exit 0 if all is well, 1 for a
# difference or a loss, 2 for wrong usage, 77 if it cannot run here.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/strike/run.sh" cp-rmdisk "$@"
