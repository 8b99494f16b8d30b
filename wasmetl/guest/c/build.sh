#!/usr/bin/env bash
# Builds the examples, each to a module that the tests use.
#
#   build.sh           write ../../testdata/c/*.wasm
#   build.sh --check   compare with what is there, and write nothing
#
# Needs Debian 12's clang 14, lld, wasi-libc and libclang-rt-14-dev-wasm32: other
# versions make other bytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

command -v clang wasm-ld >/dev/null || {
	echo "build.sh: needs clang and lld: apt-get install clang lld wasi-libc libclang-rt-14-dev-wasm32" >&2
	exit 1
}
out=../../testdata/c
check=
if [ "${1:-}" = --check ]; then
	check=1
	out=$(mktemp -d)
fi
mkdir -p "$out"
# Compiled and linked in two steps: clang hands what it links with -O to wasm-opt, if
# that is installed, which makes other bytes or does not know SIMD.
objects=$(mktemp -d)
trap 'rm -r "$objects" ${check:+"$out"}' EXIT
build() { # NAME SOURCE FLAGS...
	local model=(-mexec-model=reactor)
	[[ $1 != *wasi ]] || model=()
	clang --target=wasm32-wasi -std=gnu11 -Wall -Wextra -Werror -O3 "${@:3}" -c -o "$objects/$1.o" "$2"
	clang --target=wasm32-wasi "${model[@]}" -Wl,--strip-all -o "$out/$1.wasm" "$objects/$1.o"
	chmod a-x "$out/$1.wasm"
}
for source in examples/*.c; do
	build "$(basename "$source" .c)" "$source" -msimd128
done
# The same without SIMD, to measure what it gives.
build upper-scalar examples/upper.c -fno-vectorize -fno-slp-vectorize

if [ -n "$check" ]; then
	diff -r "$out" ../../testdata/c
	echo "the C guests are as built"
fi
