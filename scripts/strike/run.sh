#!/usr/bin/env bash
# Builds the programs, where Go is there, and runs one of the failure scripts.
#
#   scripts/strike/run.sh SCRIPT [flags]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

cannot() {
	echo "$1: $2" >&2
	exit 77
}
if command -v go >/dev/null; then
	# What a build says goes to stderr only if it fails: its first line is for the script.
	said=$(cd "$root" && go build -o .tools/bin/strike ./scripts/strike 2>&1 && make build 2>&1) ||
		cannot "$1" "the programs do not build: $said"
elif ! [ -x "$root/.tools/bin/strike" ] || ! [ -x "$root/bin/shoal" ]; then
	cannot "$1" "Go is needed to build the programs"
fi
if [ "$1" = soak ]; then
	exec "$root/.tools/bin/strike" "$1" --shoal "$root/bin/shoal" "${@:2}"
fi
exec "$root/.tools/bin/strike" "$1" --shoal "$root/bin/shoal" --modules "$root/wasmetl/testdata/c" "${@:2}"
