package disktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// step is one call of the script: batches, or a shard that is written or
// deleted.
type step struct {
	batches []core.SlotBatch
	shard   uint64 // its seed
	size    int
	hint    int64
	delete  bool
	reopen  bool
}

// script is a short history that touches everything, and what the disk should
// hold after each step.
type script struct {
	steps  []step
	models []*model // models[n]: after n steps
	bodies map[uint64][]byte
}

// makeScript is the same each time.
func makeScript() *script {
	h := newHistory(11)
	s := &script{models: []*model{h.model.clone()}, bodies: map[uint64][]byte{}}
	add := func(st step) {
		if st.shard != 0 && !st.delete {
			s.bodies[st.shard] = content(st.shard, st.size)
		}
		s.steps = append(s.steps, st)
		s.models = append(s.models, h.model.clone())
	}
	apply := func(batches ...core.SlotBatch) {
		h.model.apply(batches)
		add(step{batches: batches})
	}
	big := bytes.Repeat([]byte("big value "), 1200)
	e := entry(ver(1), put("a", "1"), put("b", "1"), core.Row{RowKey: key("big"), Value: big})
	e.Request, e.Answer = core.RequestID{1}, []byte("first")
	apply(
		core.SlotBatch{Slot: 1, Adopt: &core.Ballot{Term: 1, Boot: 1}, Append: []core.Entry{e}},
		core.SlotBatch{Slot: 2, Append: []core.Entry{entry(ver(1), put("c", "1"))}, Commit: new(ver(1))},
	)
	add(step{shard: 1, size: 3000, hint: 3000})
	apply(core.SlotBatch{Slot: 1, Append: []core.Entry{entry(ver(2), put("a", "2"), del("b"))}, Commit: new(ver(1))})
	add(step{shard: 2, size: 1<<20 + 70_000, hint: 1<<20 + 70_000})
	for range 3 {
		apply(h.batches2(big)...)
	}
	apply(core.SlotBatch{Slot: 1, Undo: new(ver(1))})
	add(step{reopen: true})
	add(step{shard: 3, size: 150_000, hint: -1})
	add(step{shard: 1, delete: true})
	apply(core.SlotBatch{Slot: 2, Remove: true})
	v := core.Version{Term: 5, Boot: 2, Seq: 9}
	apply(core.SlotBatch{Slot: 1, Replace: &core.Replace{After: 1, UpTo: v, Floor: 1, Entries: []core.Entry{
		entry(core.Version{Term: 5, Boot: 2, Seq: 4}, put("b", "r"), core.Row{RowKey: key("big"), Value: big[1:]}),
	}}})
	for range 3 {
		apply(h.batches2(big)...)
	}
	return s
}

// batches2 appends a large row and a small one to slot 3, and commits.
func (h *history) batches2(big []byte) []core.SlotBatch {
	last := h.model.slot(3).state.Last
	v := core.Version{Term: 1, Boot: 1, Seq: last.Seq + 1}
	e := entry(v, core.Row{RowKey: key(fmt.Sprint("big", v.Seq%2)), Value: big[:len(big)-int(v.Seq)]}, put("small", fmt.Sprint(v.Seq)))
	e.Request = core.RequestID{3, byte(v.Seq)}
	return []core.SlotBatch{{Slot: 3, Append: []core.Entry{e}, Commit: &v}}
}

// outcome is how far a run of the script came.
type outcome struct {
	acked int // steps that succeeded
	err   error
}

// run runs the script on a disk that is formatted. Its errors are the faults'
// work; it always closes the disk.
func (s *script) run(ctx context.Context, target Target, fsys vfs.FS, stop func(acked int)) outcome {
	d, err := target.Open(ctx, fsys, dir)
	if err != nil {
		return outcome{0, fmt.Errorf("open: %w", err)}
	}
	for i := range s.steps {
		st := &s.steps[i]
		switch {
		case st.reopen:
			if err := d.Close(); err != nil {
				return outcome{i, fmt.Errorf("close: %w", err)}
			}
			if d, err = target.Open(ctx, fsys, dir); err != nil {
				return outcome{i, fmt.Errorf("open again: %w", err)}
			}
		case st.batches != nil:
			err = d.Apply(ctx, st.batches)
		case st.delete:
			err = d.Delete(ctx, shardMeta(st.shard).ID)
		default:
			err = writeShard(ctx, d, shardMeta(st.shard), s.bodies[st.shard], st.hint, 65536)
		}
		if err != nil {
			if aerr := s.afterwards(ctx, d, i, err); aerr != nil && !errors.Is(err, errPowerLost) {
				err = fmt.Errorf("%w: %w", errWrong, aerr)
			}
			_ = d.Close()
			return outcome{i, fmt.Errorf("step %d: %w", i, err)}
		}
	}
	if stop != nil {
		stop(len(s.steps))
	}
	return outcome{len(s.steps), d.Close()}
}

// errWrong marks what must not happen, whatever fails.
var errWrong = errors.New("the disk behaves wrongly after a failure")

// afterwards checks a disk that step n has failed on: if a write failed it
// refuses all others; what it still reads is right.
func (s *script) afterwards(ctx context.Context, d Disk, n int, failed error) error {
	if errors.Is(failed, core.ErrDiskFailed) {
		if err := d.Apply(ctx, []core.SlotBatch{{Slot: 77, Append: []core.Entry{entry(ver(1))}}}); !errors.Is(err, core.ErrDiskFailed) {
			return fmt.Errorf("apply: got %w, want ErrDiskFailed", err)
		}
		if w, err := d.Create(ctx, shardMeta(77), 10); !errors.Is(err, core.ErrDiskFailed) {
			if err == nil {
				_ = w.Close()
			}
			return fmt.Errorf("create: got %w, want ErrDiskFailed", err)
		}
		if err := d.Delete(ctx, shardMeta(77).ID); !errors.Is(err, core.ErrDiskFailed) {
			return fmt.Errorf("delete: got %w, want ErrDiskFailed", err)
		}
	}
	before, after := s.models[n], s.models[n+1]
	for id, slot := range before.slots {
		for k := range before.rows {
			got, err := d.Get(ctx, id, k, slot.state.Last)
			if err != nil && !errors.Is(err, core.ErrNotFound) {
				if errors.Is(failed, core.ErrDiskFailed) && !isInjected(err) {
					return fmt.Errorf("reading goes on after a write failed, but get %v: %w", k, err)
				}
				continue
			}
			ok := false
			for _, m := range []*model{before, after} {
				want, there := core.Row{}, false
				if s := m.slots[id]; s != nil {
					want, there = s.get(k, slot.state.Last)
				}
				ok = ok || there == (err == nil) && (err != nil || sameRow(got, want) == nil)
			}
			if !ok {
				return fmt.Errorf("get %v of slot %d: got %v, %w: neither the row before the step nor the one after", k, id, got.Version, err)
			}
		}
	}
	return nil
}

func isInjected(err error) bool { return errors.Is(err, syscall.EIO) || errors.Is(err, errPowerLost) }

// verify opens the disk that a run left behind and says what is wrong with it.
func (s *script) verify(ctx context.Context, target Target, fsys vfs.FS, acked int) (err error) {
	d, err := target.Open(ctx, fsys, dir)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	err = s.models[acked].compare(ctx, d, true)
	if err != nil && acked < len(s.steps) && s.steps[acked].batches != nil {
		if err2 := s.models[acked+1].compare(ctx, d, true); err2 != nil {
			err = fmt.Errorf("the disk is neither as before step %d (%w) nor as after it (%w)", acked, err, err2)
		} else {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return s.verifyShards(ctx, d, acked)
}

func (s *script) verifyShards(ctx context.Context, d Disk, acked int) error {
	must, may := map[core.ShardID]uint64{}, map[core.ShardID]uint64{}
	for i := range s.steps[:min(acked+1, len(s.steps))] {
		st := &s.steps[i]
		id := shardMeta(st.shard).ID
		switch {
		case st.shard == 0:
		case st.delete:
			delete(must, id)
		case i < acked:
			must[id], may[id] = st.shard, st.shard
		default:
			may[id] = st.shard
		}
	}
	left := maps.Clone(must)
	for info, err := range d.Shards(ctx, core.ShardID{}) {
		if err != nil {
			return fmt.Errorf("shard %s: %w", info.ID, err)
		}
		seed, known := may[info.ID]
		if !known {
			return fmt.Errorf("shard %s was never written", info.ID)
		}
		got, err := readShard(ctx, d, info.ID)
		if err != nil {
			return fmt.Errorf("shard %d: %w", seed, err)
		}
		if !bytes.Equal(got, s.bodies[seed]) || info.ShardMeta != shardMeta(seed) {
			return fmt.Errorf("shard %d is not what was written", seed)
		}
		delete(left, info.ID)
	}
	for id, seed := range left {
		return fmt.Errorf("shard %d (%s) is lost", seed, id)
	}
	return nil
}

var errPowerLost = errors.New("power lost")

// longVariable asks for all single faults rather than for some of those that
// are alike.
const longVariable = "SHOAL_DISKTEST_LONG"

func formatted(t *testing.T, target Target) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem(vfs.MemOptions{})
	must(t, target.Format(t.Context(), m, dir))
	return m
}

// runFaults fails each operation of the script once.
func runFaults(t *testing.T, target Target) {
	base, s := formatted(t, target), makeScript()
	for k := int64(1); ; k++ {
		m := base.Clone()
		var n atomic.Int64
		var hit atomic.Pointer[vfs.Op]
		out := s.run(t.Context(), target, vfs.WithHook(m, func(op vfs.Op) error {
			if n.Add(1) != k {
				return nil
			}
			hit.Store(&op)
			if op.Kind == vfs.OpWrite && k%2 == 0 {
				return errors.Join(vfs.ErrTorn, syscall.EIO)
			}
			return syscall.EIO
		}), nil)
		op := hit.Load()
		if op == nil {
			t.Logf("%d operations", k-1)
			if out.acked != len(s.steps) || out.err != nil {
				t.Fatalf("without a fault: %+v", out)
			}
			return
		}
		if errors.Is(out.err, errWrong) {
			t.Fatalf("operation %d (%v) fails: %v", k, *op, out.err)
		}
		// A failed read leaves nothing behind that one in five would not show.
		if op.Kind.Changes() || k%5 == 0 || long() {
			if err := s.verify(t.Context(), target, m.Clone(), out.acked); err != nil {
				t.Fatalf("operation %d (%v) fails, %d steps done (%v), opened again: %v", k, *op, out.acked, out.err, err)
			}
		}
		if op.Kind.Changes() && k%3 == 0 || long() {
			if err := s.verify(t.Context(), target, m.Crash(nil), out.acked); err != nil {
				t.Fatalf("operation %d (%v) fails, %d steps done (%v), then a crash: %v", k, *op, out.acked, out.err, err)
			}
		}
	}
}

func long() bool { return os.Getenv(longVariable) != "" } //nolint:forbidigo // a test's knob

// runCrashes loses power after each operation of the script that changes
// something, with all that was not synced, and with a random part of it.
func runCrashes(t *testing.T, target Target) {
	base, s := formatted(t, target), makeScript()
	for k := int64(0); ; k++ {
		m := base.Clone()
		var n atomic.Int64
		var hit atomic.Pointer[vfs.Op]
		out := s.run(t.Context(), target, vfs.WithHook(m, func(op vfs.Op) error {
			if !op.Kind.Changes() {
				if n.Load() > k {
					return errPowerLost
				}
				return nil
			}
			if n.Add(1) <= k {
				return nil
			}
			hit.CompareAndSwap(nil, &op)
			return errPowerLost
		}), nil)
		op := hit.Load()
		if op == nil {
			t.Logf("%d changes", k)
			return
		}
		if errors.Is(out.err, errWrong) {
			t.Fatalf("power lost before change %d (%v): %v", k+1, *op, out.err)
		}
		if err := s.verify(t.Context(), target, m.Crash(nil), out.acked); err != nil {
			t.Fatalf("power lost before change %d (%v), %d steps done: %v", k+1, *op, out.acked, err)
		}
		if raceEnabled && k%3 != 0 {
			continue
		}
		rng := rand.New(rand.NewPCG(uint64(k), 99)) //nolint:gosec // repeatable on purpose
		if err := s.verify(t.Context(), target, m.Crash(rng), out.acked); err != nil {
			t.Fatalf("power lost before change %d (%v), %d steps done, some unsynced bytes kept: %v", k+1, *op, out.acked, err)
		}
	}
}

// runSabotage leaves out the syncs on which durability rests, one kind after
// the other, and demands that the checks above notice.
func runSabotage(t *testing.T, target Target) {
	for name, lie := range map[string]func(vfs.Op) bool{
		"the log's sync": func(op vfs.Op) bool { return op.Kind == vfs.OpSync && target.LogSyncs(op.Name) },
		"the tables' sync": func(op vfs.Op) bool {
			return op.Kind == vfs.OpSync && target.TableSyncs(op.Name)
		},
		"the shards' sync":      func(op vfs.Op) bool { return op.Kind == vfs.OpSync && target.ShardFile(op.Name) },
		"the directories' sync": func(op vfs.Op) bool { return op.Kind == vfs.OpSyncDir && target.ShardFile(op.Name) },
	} {
		t.Run(name, func(t *testing.T) {
			base, s := formatted(t, target), makeScript()
			var crashed *vfs.Mem
			m := base.Clone()
			lied := atomic.Int64{}
			out := s.run(t.Context(), target, vfs.WithHook(m, func(op vfs.Op) error {
				if lie(op) {
					lied.Add(1)
					return vfs.ErrSkip
				}
				return nil
			}), func(int) { crashed = m.Crash(nil) })
			if out.err != nil || lied.Load() == 0 {
				t.Fatalf("the script with %d syncs left out: %v", lied.Load(), out.err)
			}
			if err := s.verify(t.Context(), target, crashed, len(s.steps)); err == nil {
				t.Fatalf("%d syncs were left out and nothing is missing after a crash: the suite is blind", lied.Load())
			}
		})
	}
	// With all syncs in place the same crash loses nothing.
	base, s := formatted(t, target), makeScript()
	m := base.Clone()
	var crashed *vfs.Mem
	if out := s.run(t.Context(), target, m, func(int) { crashed = m.Crash(nil) }); out.err != nil {
		t.Fatal(out.err)
	}
	must(t, s.verify(t.Context(), target, crashed, len(s.steps)))
}
