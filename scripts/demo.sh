#!/usr/bin/env bash
# Shows a cluster at work on this machine: five nodes of three disks take Go's own source
# tree, as files and as tar shards, copy it to an erasure-coded bucket, lose a node in the
# middle (kill -9), finish, get the node back, and every byte is compared.
#
#   scripts/demo.sh                 `make demo` builds bin/shoal first
#   DEMO_SEED=N scripts/demo.sh     repeats the choice of the node and of the moment
#   DEMO_KEEP=1 scripts/demo.sh     leaves the cluster running at the end
#
# Exit 0 if nothing differs, 1 if something does or the job does not end well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=demo-$$
seed=${DEMO_SEED:-$RANDOM}
work=$(mktemp -d)
copy_pid=
PATH=$PWD/bin:$PATH

cleanup() {
	status=$?
	trap - EXIT INT TERM
	if [ -n "$copy_pid" ]; then kill "$copy_pid" 2>/dev/null || true; fi
	if [ "$status" -eq 0 ] && [ "${DEMO_KEEP:-}" = 1 ]; then
		say "The cluster stays: shoal dev clean --name $name removes it."
	elif [ -e "$work/up" ]; then
		shoal dev clean --name "$name" || true
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
# done_of and state_of read a job's JSON.
done_of() { sed -n 's/.*"done":{"objects":\([0-9]*\).*/\1/p'; }
state_of() { sed -n 's/.*"state":"\([a-z]*\)".*/\1/p'; }

[ -x bin/shoal ] || go build -o bin/shoal ./cmd/shoal
go build -o "$work/compare" ./scripts/compare
tree=$(go env GOROOT)/src
[ -d "$tree" ] || fail "the Go tree has no src: $tree"

say "Five nodes of three disks"
touch "$work/up"
shoal dev up -d --nodes 5 --disks 3 --base-port 0 --name "$name"
eval "$(shoal dev env --name "$name")"
shoal bucket create shoal://source --props scheme=mirror-2
shoal bucket create shoal://copy --props scheme=ec-3+1

say "Go's source tree: every file an object, and four parts as tar shards"
mkdir "$work/shards"
for part in crypto net runtime encoding; do
	tar -cf "$work/shards/$part.tar" -C "$tree" "$part"
done
shoal put "$tree" shoal://source/src/ -r --num-workers 64
shoal put "$work/shards" shoal://source/shards/ -r
# What the job must have copied is counted from the files, not taken from the cluster.
total=$(find "$tree" "$work/shards" -type f | wc -l)

RANDOM=$seed
victim=n$((RANDOM % 5 + 1))
percent=$((RANDOM % 40 + 25))
talks=
[ "$victim" != n1 ] || talks=", the node that this command line talks to"
say "Copy of $total objects to ec-3+1; $victim$talks is to die at $percent % (seed $seed)"
# The id is the same for the watcher and for the display.
job=$(shoal cp shoal://source shoal://copy --detach)
shoal wait "$job" --progress --refresh 1 &
copy_pid=$!

# Every half second: how many objects are done. The kill is in between.
killed=
samples=()
marks=()
previous=0
while kill -0 "$copy_pid" 2>/dev/null; do
	answer=$(shoal show job "$job" --json --timeout 5 2>/dev/null || true)
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
		bar = sprintf("%*s", rate / 40 > 60 ? 60 : rate / 40, ""); gsub(/ /, "#", bar)
		note = $0; sub(/^[0-9]+ [0-9]+ ?/, "", note)
		printf "  %6.1f s %7d done %7.0f/s  %s %s\n", ($1 - start) / 1e9, $2, rate, bar, note
	}
	NR == 1 { start = $1 }
	{ t = $1; n = $2 }'
shoal show performance
shoal show cluster

answer=$(shoal show job "$job" --json)
[ "$(state_of <<<"$answer")" = "done" ] || fail "the job is not done: $answer"
planned=$(sed -n 's/.*"planned":{"objects":\([0-9]*\).*/\1/p' <<<"$answer")
[ "$planned" = "$total" ] || fail "the job planned $planned objects; the files are $total"
[ "$(done_of <<<"$answer")" = "$total" ] || fail "the job did not copy all of $total objects: $answer"

say "$victim starts again"
shoal dev start "$victim" --name "$name"
shoal cluster wait --healthy --timeout 90

say "Every object of both buckets against the files, byte by byte"
"$work/compare" -source shoal://source -target shoal://copy src="$tree" shards="$work/shards" ||
	fail "the comparison found a difference (seed $seed)"

say "All $total objects are equal in source, copy and files; nothing was lost with $victim (seed $seed)."
cat <<END
While a cluster runs (shoal dev up -d):
  browser   $AWS_ENDPOINT_URL/-/metrics (Prometheus), $AWS_ENDPOINT_URL/-/api/v1/cluster (signed: shoal show cluster --json)
  aws       eval "\$(shoal dev env)"; aws s3 ls s3://source/src/
  nats      eval "\$(shoal dev env)"; nats req shoal.job.list '{}'
END
