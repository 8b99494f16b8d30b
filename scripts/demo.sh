#!/usr/bin/env bash
# Shows a cluster at work on this machine: Go's standard library lies in an S3 server (versitygw),
# five nodes of three disks copy it to a server of Google Cloud Storage (fake-gcs-server), of which
# nothing is in the cluster before. They lose a node in the middle (kill -9) and finish; then every
# object is compared between the two servers and with its file.
#
#   scripts/demo.sh                 `make demo` builds bin/shoal and the servers first
#   DEMO_SEED=N scripts/demo.sh     repeats the choice of the node and of the moment
#   DEMO_KEEP=1 scripts/demo.sh     leaves everything running at the end, until Ctrl-C
#
# Exit 0 if nothing differs, 1 if something does or the job does not end well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=demo-$$
seed=${DEMO_SEED:-$RANDOM}
work=$(mktemp -d)
copy_pid=
servers_pid=
PATH=$PWD/bin:$PATH

cleanup() {
	status=$?
	trap - EXIT
	trap '' INT TERM
	if [ -n "$copy_pid" ]; then
		kill "$copy_pid" 2>/dev/null || true
		wait "$copy_pid" 2>/dev/null || true
	fi
	if [ -e "$work/up" ]; then shoal dev clean --yes --name "$name" || true; fi
	if [ -n "$servers_pid" ]; then
		kill "$servers_pid" 2>/dev/null || true
		wait "$servers_pid" 2>/dev/null || true
	fi
	rm -rf "$work"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() {
	printf '\ndemo: %s\n' "$*" >&2
	exit 1
}
# Of a job's JSON: id, state, and objects done.
id_of() { sed -n 's/^{"id":"\([^"]*\)".*/\1/p' | head -n 1; }
done_of() { sed -n 's/.*"done":{"objects":\([0-9]*\).*/\1/p'; }
state_of() { sed -n 's/.*"state":"\([a-z]*\)".*/\1/p'; }

[ -x bin/shoal ] || go build -tags disable_grpc_modules -o bin/shoal ./cmd/shoal
go build -o "$work/demo" ./scripts/demo
tree=$(go env GOROOT)/src
[ -d "$tree" ] || fail "the Go tree has no src: $tree"
# The standard library without tests. What the job must have copied is counted from the files, not taken from the cluster.
(cd "$tree" && find . \( -path ./cmd -o -name testdata -o -name '*_test.go' \) -prune -o -type f -print) >"$work/files"
total=$(wc -l <"$work/files")

say "An S3 server and a server of Google Cloud Storage, by other people"
coproc SERVERS { exec "$work/demo" serve src dst; }
servers_pid=$SERVERS_PID
# What the servers want of their clients, and so of the nodes. This command line knows only the nodes' keys.
cloud=()
while read -r line <&"${SERVERS[0]}" && [ "$line" != end ]; do cloud+=("$line"); done
[ "${line:-}" = end ] || fail "the servers do not start; scripts/tools.sh fake-gcs-server versitygw installs them"
s3=$(sed -n 's/^S3_URL=//p' < <(printf '%s\n' "${cloud[@]}"))
gcs=$(sed -n 's/^GCS_URL=//p' < <(printf '%s\n' "${cloud[@]}"))
printf 's3  %s (versitygw)\ngs  %s (fake-gcs-server)\n' "$s3" "$gcs"

say "Go's standard library goes into s3://src there, each file an object"
env "${cloud[@]}" "$work/demo" put "$tree" src <"$work/files"

say "Five nodes of three disks, before these servers"
touch "$work/up"
env "${cloud[@]}" "$PWD/bin/shoal" dev up -d --nodes 5 --disks 3 --base-port 0 --name "$name" \
	--backend "s3=$s3" --backend "gs=$gcs"
eval "$(shoal dev env --name "$name")"
cat <<END
  browser   $AWS_ENDPOINT_URL/-/metrics
  aws       eval "\$(shoal dev env --name $name)"; aws --endpoint-url $AWS_ENDPOINT_URL s3 ls s3://src
  nats      eval "\$(shoal dev env --name $name)"; nats req shoal.job.list '{}'
END
shoal storage summary s3://src --all

RANDOM=$seed
victim=n$((RANDOM % 5 + 1))
percent=$((RANDOM % 40 + 22))
talks=
[ "$victim" != n1 ] || talks=", the node that this command line talks to"
leader=$(shoal show cluster --json | sed -n 's/.*"nats_leader":"\([^"]*\)".*/\1/p')
[ "$victim" != "$leader" ] || talks="$talks, which leads the bus"
say "Copy of $total objects; $victim$talks is to die at $percent % (seed $seed)"
printf '$ shoal cp s3://src gs://dst --progress --refresh 3 --all\n'
shoal cp s3://src gs://dst --progress --refresh 3 --all &
copy_pid=$!

# Every half second: how many objects are done. The kill is in between.
job=
killed=
samples=()
marks=()
previous=0
while kill -0 "$copy_pid" 2>/dev/null; do
	[ -n "$job" ] || job=$(shoal show job copy-bck --json --timeout 5 2>/dev/null | id_of || true)
	answer=
	[ -z "$job" ] || answer=$(shoal show job "$job" --json --timeout 5 2>/dev/null || true)
	now=$(done_of <<<"$answer")
	if [ -n "$now" ]; then
		samples+=("$(date +%s%N) $now")
		marks+=("")
		if [ -z "$killed" ] && [ $((now * 100)) -ge $((total * percent)) ] && [ "$(state_of <<<"$answer")" = running ]; then
			shoal -q dev kill "$victim" --name "$name"
			killed=$now
			marks[-1]="<- kill -9 $victim"
			printf '\n*** kill -9 %s: %d of %d objects were done (%d %%)\n' "$victim" "$now" "$total" $((now * 100 / total)) >&2
		fi
		previous=$now
	fi
	read -rt 0.5 <> <(:) || true
done
wait "$copy_pid" || fail "the copy ended with exit code $?; see shoal show job $job --errors"
copy_pid=
[ -n "$killed" ] || fail "the copy ended at $previous objects before $victim could be killed"
[ $((killed * 100)) -le $((total * 70)) ] || fail "the kill came late, at $killed of $total objects"

say "The job has ended by itself. Objects per second on the way:"
printf '%s\n' "${samples[@]}" | paste -d' ' - <(printf '%s\n' "${marks[@]}") | awk '
	NR > 1 && $1 > t {
		rate = ($2 - n) * 1e9 / ($1 - t); if (rate < 0) rate = 0
		rates[NR] = rate; if (rate > most) most = rate
		note = $0; sub(/^[0-9]+ [0-9]+ ?/, "", note)
		lines[NR] = sprintf("  %6.1f s %7d done %7.0f/s  ", ($1 - start) / 1e9, $2, rate); notes[NR] = note
	}
	NR == 1 { start = $1 }
	{ t = $1; n = $2 }
	END {
		for (i = 2; i <= NR; i++) if (i in lines) {
			bar = sprintf("%*s", most ? rates[i] * 60 / most : 0, ""); gsub(/ /, "#", bar)
			print lines[i] bar " " notes[i]
		}
	}'
shoal show performance
shoal show cluster

answer=$(shoal show job "$job" --json)
[ "$(state_of <<<"$answer")" = "done" ] || fail "the job is not done: $answer"
planned=$(sed -n 's/.*"planned":{"objects":\([0-9]*\).*/\1/p' <<<"$answer")
[ "$planned" = "$total" ] || fail "the job planned $planned objects; the files are $total"
[ "$(done_of <<<"$answer")" = "$total" ] || fail "the job did not copy all of $total objects: $answer"

say "$victim starts again"
env "${cloud[@]}" "$PWD/bin/shoal" dev start "$victim" --name "$name"
shoal cluster wait --healthy --timeout 90

say "Every object of both servers, read there and not through the cluster, against the files, byte by byte"
env "${cloud[@]}" "$work/demo" compare "$tree" src dst <"$work/files" ||
	fail "the comparison found a difference (seed $seed)"

say "All $total objects have arrived, though $victim was killed at $killed (seed $seed)."
if [ "${DEMO_KEEP:-}" = 1 ]; then
	say "Everything goes on until Ctrl-C; see above for addresses."
	while kill -0 "$servers_pid" 2>/dev/null; do read -rt 1 <> <(:) || true; done
fi
