#!/usr/bin/env bash
# Copies a bucket of scheme none, and puts a random node into maintenance meanwhile. Every
# byte is compared before the node is back in service and after.
#
#   scripts/cp-rmnode-rebalance.sh [--rounds N] [--objects N] [--size S] [--seed N] [--job etl] [--strike PART] [--endpoint LIST] ...
#
# --help lists the flags, docs/failures.md explains them. Exit 0 if all is well, 1 for a
# difference or a loss, 2 for wrong usage, 77 if it cannot run here.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/strike/run.sh" cp-rmnode-rebalance "$@"
