package disktest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// runConcurrent has writers of different slots, readers, scans and shards at
// work at once. A row is overwritten with ever higher numbers; whoever reads it
// after a commit must see that number or a higher one, never nothing.
func runConcurrent(t *testing.T, target Target) {
	b := newBench(t, target, vfs.NewMem(vfs.MemOptions{}), dir)
	const slots, entries = 4, 60
	var marks [slots]sync.Map // "mark" -> highest committed number
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for slot := range slots {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(slot), 7)) //nolint:gosec // repeatable on purpose
			for n := uint64(1); n <= entries; n++ {
				e := entry(ver(n), core.Row{RowKey: key(fmt.Sprint("k", slot)), Value: fmt.Appendf(nil, "%08d%s", n, bytes.Repeat([]byte("v"), rng.IntN(3000)))})
				err := b.Apply(t.Context(), []core.SlotBatch{{Slot: core.SlotID(slot), Append: []core.Entry{e}}})
				if err == nil {
					err = b.Apply(t.Context(), []core.SlotBatch{{Slot: core.SlotID(slot), Commit: &e.Version}})
				}
				if err != nil {
					t.Errorf("slot %d: %v", slot, err)
					return
				}
				marks[slot].Store("mark", n)
			}
		})
		writers.Go(func() {
			for i := range uint64(12) {
				seed := uint64(slot)*100 + i
				if err := writeShard(t.Context(), b, shardMeta(seed), content(seed, int(i)*9000), -1, 70_000); err != nil {
					t.Errorf("shard: %v", err)
					return
				}
			}
		})
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				n, ok := marks[slot].Load("mark")
				if !ok {
					continue
				}
				r, err := b.Get(t.Context(), core.SlotID(slot), key(fmt.Sprint("k", slot)), ver(n.(uint64)))
				if err != nil || r.Version.Seq < n.(uint64) {
					t.Errorf("slot %d, mark %d: got %v, %v", slot, n, r.Version, err)
					return
				}
				found := false
				for f, err := range b.Scan(t.Context(), core.Scan{Bucket: 1, Visible: func(s core.SlotID) (core.Version, bool) {
					return ver(n.(uint64)), int(s) == slot
				}}) {
					if err != nil {
						t.Errorf("scan: %v", err)
						return
					}
					found = found || f.Version.Seq >= n.(uint64)
				}
				if !found {
					t.Errorf("slot %d, mark %d: the scan does not have the row", slot, n)
					return
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	b.reopen()
	for slot := range slots {
		if got := b.value(core.SlotID(slot), key(fmt.Sprint("k", slot)), ver(entries)); len(got) < 8 || got[:8] != fmt.Sprintf("%08d", entries) {
			t.Errorf("slot %d: got %.8q, want %08d", slot, got, entries)
		}
		for i := range uint64(12) {
			seed := uint64(slot)*100 + i
			if got, err := readShard(t.Context(), b, shardMeta(seed).ID); err != nil || !bytes.Equal(got, content(seed, int(i)*9000)) {
				t.Errorf("shard %d: content differs (%v)", seed, err)
			}
		}
	}
	// Two calls for one slot at once are refused or take turns, never mixed.
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				_ = b.Apply(t.Context(), []core.SlotBatch{{Slot: 99, Append: []core.Entry{entry(ver(1))}}})
				states, err := b.Slots(t.Context())
				if err != nil || states[99].Last == ver(1) {
					return
				}
			}
		})
	}
	group.Wait()
}
