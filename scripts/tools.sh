#!/usr/bin/env bash
# Installs the tools that the gate and the tests use, each at a pinned version.
#
#   scripts/tools.sh NAME...     install these (nothing happens if they are there)
#   scripts/tools.sh all         install every one
#   scripts/tools.sh --list      print name, kind and pin
#
# Go programs go to .tools/bin (git-ignored); a stamp under .tools/stamps names the
# pin and the Go release that built each, so a changed pin or Go rebuilds it. What Go
# cannot build comes from Debian. Both go through the ordinary clients (go, apt-get).
#
# To add a tool: one line in go_pins or deb_packages.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$root/.tools/bin
stamps=$root/.tools/stamps

# name of the program -> package@version
declare -A go_pins=(
	[benchstat]=golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
	[fake-gcs-server]=github.com/fsouza/fake-gcs-server@v1.56.1
	[gofumpt]=mvdan.cc/gofumpt@v0.12.0
	[golangci-lint]=github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	[nats]=github.com/nats-io/natscli/nats@v0.5.1
	[rclone]=github.com/rclone/rclone@v1.76.0
	[versitygw]=github.com/versity/versitygw/cmd/versitygw@v1.8.0
)

# name of the program -> Debian packages (the version is the one that Debian 12 ships)
declare -A deb_packages=(
	[aws]="awscli"
	[gcc]="gcc libc6-dev"
	[s3cmd]="s3cmd"
	[shellcheck]="shellcheck"
)

apt_updated= # has this run asked the mirror for its newest lists?

die() {
	printf 'tools.sh: %s\n' "$*" >&2
	exit 1
}

say() { printf 'tools.sh: %s\n' "$*" >&2; }

# deb_present NAME: is it usable? A gcc without the C library's headers is not.
deb_present() {
	case $1 in
	gcc) printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' |
		gcc -x c -o /dev/null - 2>/dev/null ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

install_deb() {
	local name=$1
	local -a packages as_root=()
	read -ra packages <<<"${deb_packages[$name]}"
	if deb_present "$name"; then
		return
	fi
	command -v apt-get >/dev/null ||
		die "$name is needed and there is no apt-get here: install it (Debian: ${packages[*]}), then try again"
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null ||
			die "$name is needed: run 'apt-get install ${packages[*]}' as root (not root, and there is no sudo)"
		as_root=(sudo)
	fi
	say "installing ${packages[*]} from Debian"
	local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
	if [ -z "$apt_updated" ]; then
		"${apt[@]}" update >&2 ||
			die "apt-get update failed: $name is needed (Debian: ${packages[*]}); is a Debian mirror within reach?"
		apt_updated=yes
	fi
	"${apt[@]}" install --no-install-recommends "${packages[@]}" >&2 ||
		die "apt-get install ${packages[*]} failed: $name is needed"
	deb_present "$name" || die "$name does not work although ${packages[*]} is installed"
}

install_go() {
	local name=$1 pin=${go_pins[$1]} goversion want stage
	goversion=$(go env GOVERSION)
	want="$pin $goversion"
	mkdir -p "$bin" "$stamps"
	# One at a time: two makes may ask for the same tool.
	exec 9>"$stamps/$name.lock"
	flock 9
	if [ -x "$bin/$name" ] && [ "$(cat "$stamps/$name" 2>/dev/null)" = "$want" ]; then
		exec 9>&-
		return
	fi
	say "building $pin"
	stage=$(mktemp -d "$root/.tools/stage.XXXXXX")
	# shellcheck disable=SC2064 # the directory's name of now is meant
	trap "rm -rf '$stage'" EXIT
	local started=$SECONDS
	GOBIN=$stage CGO_ENABLED=0 GOOS='' GOARCH='' go install -trimpath -ldflags='-s -w' "$pin" ||
		die "go install $pin failed (above): is the Go module proxy of go env GOPROXY within reach?"
	[ -x "$stage/$name" ] || die "$pin built no program called $name"
	mv -f "$stage/$name" "$bin/$name"
	printf '%s\n' "$want" >"$stamps/$name"
	rm -rf "$stage"
	trap - EXIT
	exec 9>&-
	say "$name is ready after $((SECONDS - started)) s"
}

list() {
	local name
	for name in "${!go_pins[@]}"; do printf '%s\tgo\t%s\n' "$name" "${go_pins[$name]}"; done
	for name in "${!deb_packages[@]}"; do printf '%s\tdebian\t%s\n' "$name" "${deb_packages[$name]}"; done
}

[ $# -gt 0 ] || die "usage: tools.sh NAME... | all | --list"
if [ "$1" = --list ]; then
	list | sort
	exit
fi
if [ "$1" = all ]; then
	mapfile -t names < <(list | sort | cut -f1)
	set -- "${names[@]}"
fi
command -v go >/dev/null || die "go is not on the PATH: install Go 1.26 or newer"
for name; do
	if [ -n "${go_pins[$name]:-}" ]; then
		install_go "$name"
	elif [ -n "${deb_packages[$name]:-}" ]; then
		install_deb "$name"
	else
		die "no tool called '$name' (scripts/tools.sh --list names them)"
	fi
done
