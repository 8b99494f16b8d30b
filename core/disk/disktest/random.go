package disktest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// seedVariable names the environment variable that repeats a random history.
const seedVariable = "SHOAL_DISKTEST_SEED"

// history makes random batches that a disk must accept, and keeps the model.
type history struct {
	rng   *rand.Rand
	model *model
	term  core.Epoch
}

func newHistory(seed uint64) *history {
	return &history{rng: rand.New(rand.NewPCG(seed, seed^0x5eed)), model: newModel(), term: 1} //nolint:gosec // repeatable on purpose
}

func (h *history) chance(percent int) bool { return h.rng.IntN(100) < percent }

func (h *history) row(deleted bool) core.Row {
	keys := []string{"a", "a\x00", "a\x00b", "ab", "b", "\xff", "long/" + string(bytes.Repeat([]byte("k"), 200))}
	r := core.Row{RowKey: core.RowKey{Bucket: 1 + core.BucketID(h.rng.IntN(2)), Key: keys[h.rng.IntN(len(keys))]}, Deleted: deleted}
	switch h.rng.IntN(6) {
	case 0:
		r.Space, r.Sub = core.SpacePart, strconv.Itoa(h.rng.IntN(3))
	case 1:
		r.RowKey = core.RowKey{Space: core.SpaceCursor, Key: "job"}
	}
	if !deleted {
		sizes := []int{0, 10, 300, 1000, 1100, 3000}
		r.Value = bytes.Repeat([]byte{byte(h.rng.Uint32())}, sizes[h.rng.IntN(len(sizes))]+h.rng.IntN(30))
		if len(r.Value) == 0 {
			r.Value = nil
		}
	}
	return r
}

// entry makes an entry; its time goes with its number, so that answers are
// dropped in order.
func (h *history) entry(v core.Version, floor uint64) core.Entry {
	e := core.Entry{Version: v, Time: int64(v.Seq) * 1000}
	if h.chance(60) {
		for i := range e.Request {
			e.Request[i] = byte(h.rng.Uint32())
		}
		if h.chance(80) {
			e.Answer = fmt.Appendf(nil, "answer %v", v)
		}
	}
	seen := map[core.RowKey]bool{}
	for range h.rng.IntN(4) {
		r := h.row(h.chance(30))
		if r.Version = v; !seen[r.RowKey] {
			e.Rows = append(e.Rows, r)
		}
		seen[r.RowKey] = true
	}
	if h.chance(10) && floor > 0 {
		e.Floor = 1 + h.rng.Uint64N(floor)
	}
	return e
}

func (h *history) batch(slot core.SlotID) core.SlotBatch {
	s := h.model.slots[slot]
	if s == nil {
		s = &modelSlot{}
	}
	st := s.state
	b := core.SlotBatch{Slot: slot}
	if h.chance(3) {
		b.Remove = true
		s, st = &modelSlot{}, core.SlotState{}
	}
	if h.chance(10) {
		b.Adopt = &core.Ballot{Term: h.term, Boot: h.rng.Uint64N(3)}
	}
	switch {
	case b.Remove:
	case h.chance(8):
		v := h.replaceVersion(st)
		b.Replace = h.replace(st, v)
		if st.Committed.Seq > v.Seq {
			b.Undo = &v
		}
		st.Committed, st.Last = v, v
	case h.chance(15) && st.Last != st.Committed:
		v := st.Committed
		for i := range s.entries {
			if e := &s.entries[i]; e.Version.Compare(v) > 0 && h.chance(50) {
				v = e.Version
			}
		}
		b.Undo = &v
		st.Last = v
		h.term++
	}
	for range h.rng.IntN(4) {
		v := core.Version{Term: max(h.term, st.Last.Term), Boot: 1, Seq: st.Last.Seq + 1}
		if v.Compare(st.Last) <= 0 {
			v.Term++
			h.term = v.Term
		}
		b.Append = append(b.Append, h.entry(v, st.Committed.Seq))
		st.Last = v
	}
	if h.chance(60) {
		v := st.Committed
		for _, e := range append(slices.Clip(s.entries), b.Append...) {
			if e.Version.Compare(v) > 0 && e.Version.Compare(st.Last) <= 0 && h.chance(70) {
				v = e.Version
			}
		}
		b.Commit = &v
	}
	return b
}

func (h *history) replaceVersion(st core.SlotState) core.Version {
	h.term++
	v := core.Version{Term: max(h.term, st.Last.Term+1), Boot: 1, Seq: st.Committed.Seq + h.rng.Uint64N(6)}
	if h.chance(30) {
		v.Seq = 1 + h.rng.Uint64N(st.Committed.Seq+3)
	}
	v.Seq = max(v.Seq, 1)
	h.term = v.Term
	return v
}

func (h *history) replace(st core.SlotState, upTo core.Version) *core.Replace {
	r := &core.Replace{UpTo: upTo}
	if upTo.Seq >= st.Committed.Seq && h.chance(60) && st.Committed.Seq > 0 {
		r.After = st.Committed.Seq - h.rng.Uint64N(min(st.Committed.Seq, 4))
		r.After = min(r.After, upTo.Seq)
	}
	if r.After > 0 || h.chance(50) {
		r.Floor = h.rng.Uint64N(r.After + 3)
	}
	for seq := r.After + 1; seq <= upTo.Seq; seq++ {
		if h.chance(60) {
			r.Entries = append(r.Entries, h.entry(core.Version{Term: upTo.Term, Boot: upTo.Boot, Seq: seq}, 0))
		}
	}
	return r
}

// batches makes one call of Apply and applies it to the model.
func (h *history) batches() []core.SlotBatch {
	var out []core.SlotBatch
	for range 1 + h.rng.IntN(3) {
		b := h.batch(core.SlotID(1 + h.rng.IntN(3)))
		h.model.apply([]core.SlotBatch{b})
		out = append(out, b)
	}
	return out
}

// runModel compares random histories with the model, over closing and opening.
func runModel(t *testing.T, target Target) {
	seeds, steps, every := []uint64{1, 2, 3}, 150, 5
	if raceEnabled {
		// Pebble notes a stack for each iterator then.
		seeds, steps, every = []uint64{1}, 40, 13
	}
	if long() {
		for seed := uint64(4); seed < 200; seed++ {
			seeds = append(seeds, seed)
		}
	}
	if s := os.Getenv(seedVariable); s != "" { //nolint:forbidigo // a test's knob
		n, err := strconv.ParseUint(s, 10, 64)
		must(t, err)
		seeds = []uint64{n}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			h := newHistory(seed)
			b := newBench(t, target, vfs.NewMem(vfs.MemOptions{}), dir)
			for step := range steps {
				if h.chance(8) {
					before := int64(h.rng.IntN(60)) * 1000
					must(t, b.DropAnswers(t.Context(), before))
					h.model.dropAnswers(before)
				}
				if h.chance(20) {
					_, err := b.Reclaim(t.Context(), 1+h.rng.IntN(8))
					must(t, err)
				}
				batches := h.batches()
				if err := b.Apply(t.Context(), batches); err != nil {
					t.Fatalf("seed %d, step %d: %v\n%s", seed, step, err, describe(batches))
				}
				if h.chance(6) {
					b.reopen()
				}
				if step%every == 0 || step == steps-1 {
					if err := h.model.compare(t.Context(), b.Disk, false); err != nil {
						t.Fatalf("seed %d, step %d (%s=%d repeats it): %v\n%s", seed, step, seedVariable, seed, err, describe(batches))
					}
				}
			}
		})
	}
}

// describe writes batches without the values of their rows.
func describe(batches []core.SlotBatch) string {
	var out bytes.Buffer
	entries := func(list []core.Entry) {
		for i := range list {
			fmt.Fprintf(&out, "    %v floor %d request %v:", list[i].Version, list[i].Floor, !list[i].Request.IsZero())
			for _, r := range list[i].Rows {
				fmt.Fprintf(&out, " %d/%d/%.10q/%q(%d bytes, deleted %v)", r.Bucket, r.Space, r.Key, r.Sub, len(r.Value), r.Deleted)
			}
			fmt.Fprintln(&out)
		}
	}
	for i := range batches {
		b := &batches[i]
		fmt.Fprintf(&out, "  slot %d remove %v adopt %v undo %v append %d commit %v\n", b.Slot, b.Remove, b.Adopt, b.Undo, len(b.Append), b.Commit)
		if b.Replace != nil {
			fmt.Fprintf(&out, "   replace after %d up to %v floor %d\n", b.Replace.After, b.Replace.UpTo, b.Replace.Floor)
			entries(b.Replace.Entries)
		}
		entries(b.Append)
	}
	return out.String()
}
