package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// runSpace fills a disk with shards and rows. Both are refused cleanly, what is
// there stays readable, deletions and commits go on, and once there is space the
// same disk takes data again.
func runSpace(t *testing.T, target Target) {
	m := vfs.NewMem(vfs.MemOptions{Capacity: 9 << 20})
	b := newBench(t, target, m, dir)
	const shardBytes = 300_000
	var shards []uint64
	for seed := uint64(1); ; seed++ {
		err := writeShard(t.Context(), b, shardMeta(seed), content(seed, shardBytes), -1, 100_000)
		if errors.Is(err, core.ErrNoSpace) {
			break
		}
		must(t, err)
		shards = append(shards, seed)
	}
	seq := uint64(0)
	value := bytes.Repeat([]byte("v"), 20_000)
	appendRow := func(r core.Row) error {
		err := b.Apply(t.Context(), []core.SlotBatch{{Slot: 1, Append: []core.Entry{entry(ver(seq+1), r)}}})
		if err == nil {
			seq++
		}
		return err
	}
	fill := func() {
		t.Helper()
		for {
			err := appendRow(core.Row{RowKey: key(fmt.Sprint("k", seq+1)), Value: value})
			if errors.Is(err, core.ErrNoSpace) {
				return
			}
			must(t, err)
		}
	}
	fill()
	if len(shards) == 0 || seq == 0 {
		t.Fatalf("full at once: %d shards, %d rows", len(shards), seq)
	}
	check := func() {
		t.Helper()
		for _, seed := range shards {
			if got, err := readShard(t.Context(), b, shardMeta(seed).ID); err != nil || !bytes.Equal(got, content(seed, shardBytes)) {
				t.Fatalf("shard %d: content differs (%v)", seed, err)
			}
		}
		if got := b.value(1, key("k1"), ver(seq)); got != string(value) {
			t.Fatal("row k1 differs")
		}
	}
	check()
	// Deletions, commits and ballots need no permission.
	must(t, appendRow(del("k2")))
	b.apply(core.SlotBatch{Slot: 1, Adopt: &core.Ballot{Term: 9}, Commit: new(ver(seq))})
	b.want(1, ver(seq), map[string]string{"k2": "x"})
	fill() // logs may have become free meanwhile
	b.reopen()
	check()
	for _, seed := range shards[:len(shards)/2] {
		must(t, b.Delete(t.Context(), shardMeta(seed).ID))
	}
	shards = shards[len(shards)/2:]
	must(t, appendRow(core.Row{RowKey: key("more"), Value: value}))
	must(t, writeShard(t.Context(), b, shardMeta(1000), content(1000, shardBytes), shardBytes, 100_000))
	shards = append(shards, 1000)
	check()
}
