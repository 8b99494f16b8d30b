#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, each for a limited time.
#
#   scripts/fuzz.sh [TIME [PACKAGES...]]     TIME as go test -fuzztime takes it (10s)
#
# Exit 1 if a target fails, or if there is none. Go writes the input that failed to
# testdata/fuzz below the package: commit it with the fix, it is a test from then on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fuzztime=${1:-10s}
shift $(($# > 0))
[ $# -gt 0 ] || set -- ./...

# "package target" a line: go test -list prints the targets of a package, then a line
# that names the package.
listing=$(go test -list '^Fuzz' "$@") || {
	printf '%s\n' "$listing" >&2
	echo "fuzz.sh: the tests do not build, so the fuzz targets are not known" >&2
	exit 1
}
mapfile -t targets < <(awk '
	/^Fuzz/ { names[++n] = $1 }
	/^ok[ \t]/ { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }
' <<<"$listing")
[ ${#targets[@]} -gt 0 ] || {
	echo "fuzz.sh: no package of $* has a fuzz target" >&2
	exit 1
}

failed=()
for target in "${targets[@]}"; do
	read -r package name <<<"$target"
	echo "== $package $name for $fuzztime"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" -parallel 2 "$package" ||
		failed+=("$package $name")
done
echo
if [ ${#failed[@]} -gt 0 ]; then
	printf 'failed: %s\n' "${failed[@]}"
	echo "fuzz: ${#failed[@]} of ${#targets[@]} targets failed"
	exit 1
fi
echo "fuzz: ${#targets[@]} targets, $fuzztime each, none failed"
