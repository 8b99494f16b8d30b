#!/usr/bin/env bash
# Runs the failure scripts in turn, for as long as asked, and logs every round with its
# seed. It goes on where its log ends; `make soak` runs it.
#
#   scripts/soak.sh [--minutes M] [--rounds N] [--log FILE] ...      until Ctrl-C by default
#
# --help lists the flags. Exit 0 if every round went well, 1 if one did not, 2 for wrong
# usage, 77 if it cannot run here.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/strike/run.sh" soak "$@"
