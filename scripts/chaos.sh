#!/usr/bin/env bash
# Has everything fail, one thing at a time and at random, under mixed traffic: nodes are
# killed, frozen, stopped and added, disks detached, wiped and damaged, the bus loses its
# leader. Every acknowledged write, every listing and every job's books are checked.
#
#   scripts/chaos.sh [--minutes M | --rounds N] [--seed N] [--endpoint LIST] ...
#
# --help lists the flags, docs/failures.md explains them. Exit 0 if all is well, 1 for a
# difference or a loss, 2 for wrong usage, 77 if it cannot run here.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/strike/run.sh" chaos "$@"
