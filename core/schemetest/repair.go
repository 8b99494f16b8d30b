package schemetest

import (
	"errors"
	"slices"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memstore"
)

// repair is a spec that makes the lost shards on the spare disks.
func (r *Rig) repair(e core.Extent, lost []int) core.RepairSpec {
	spec := core.RepairSpec{ReadSpec: r.spec(e), Shards: lost, Meta: r.Spec().Meta}
	for j, i := range lost {
		spec.Src[i] = nil
		spec.Dst = append(spec.Dst, r.Target(r.Width+j))
	}
	return spec
}

func testRepair(t *testing.T, r *Rig) {
	s := r.Coder.Scheme()
	for _, size := range []int{1, 7_001, 2*Chunk + 7_001} {
		data := Data(size, 40)
		e := r.Write(t, data)
		for _, lost := range r.losses() {
			before := r.bytesRead()
			fixed, err := r.Coder.Repair(t.Context(), r.repair(e, lost))
			if err != nil {
				t.Fatalf("repair %v: %v", lost, err)
			}
			total := int64(0)
			for i, n := range r.bytesRead() {
				total += n - before[i]
			}
			if most := s.Data() * r.shardSize(t, e, 0); total > int64(most) {
				t.Errorf("repair %v: %d bytes were read, want %d at most", lost, total, most)
			}
			for i := range r.Width {
				want := e.Places[i].Disk
				if j := slices.Index(lost, i); j >= 0 {
					want = core.DiskID(r.Width + j + 1)
					if fixed.Shard(i) == e.Shard(i) {
						t.Errorf("repair %v: shard %d has its old name", lost, i)
					}
					r.wantEqual(t, e, fixed, i)
				}
				if fixed.Places[i].Disk != want {
					t.Errorf("repair %v: shard %d is on disk %d, want %d", lost, i, fixed.Places[i].Disk, want)
				}
			}
			r.Check(t, r.spec(fixed), data)
			r.forget(t, fixed, lost)
		}
		r.Idle(t, e)
		r.forget(t, e, Subsets(r.Width, r.Width, 1)[0])
	}
}

// wantEqual wants shard i to be the same in both extents.
func (r *Rig) wantEqual(t *testing.T, a, b core.Extent, i int) {
	t.Helper()
	if x, y := r.shard(t, a, i), r.shard(t, b, i); !slices.Equal(x, y) {
		t.Errorf("shard %d was rebuilt wrong, from byte %d of %d on", i, mismatch(x, y), len(x))
	}
}

// shard returns the content of a shard.
func (r *Rig) shard(t *testing.T, e core.Extent, i int) []byte {
	t.Helper()
	s, err := r.Disk(e, i).Open(t.Context(), e.Shard(i))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	b := make([]byte, s.Size())
	if _, err := s.ReadAt(t.Context(), b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func (r *Rig) shardSize(t *testing.T, e core.Extent, i int) int {
	t.Helper()
	s, err := r.Disk(e, i).Open(t.Context(), e.Shard(i))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	return int(s.Size())
}

// forget deletes shards, which Idle does not look for any more.
func (r *Rig) forget(t *testing.T, e core.Extent, shards []int) {
	t.Helper()
	for _, i := range shards {
		if err := r.Disk(e, i).Delete(t.Context(), e.Shard(i)); err != nil {
			t.Fatal(err)
		}
		delete(r.want, e.Shard(i))
	}
}

func testRepairTooMany(t *testing.T, r *Rig) {
	e := r.Write(t, Data(large, 41))
	for _, lost := range Subsets(r.Width, r.Coder.Scheme().M+1, 5) {
		if _, err := r.Coder.Repair(t.Context(), r.repair(e, lost)); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("repair %v: got error %v, want ErrUnavailable", lost, err)
		}
	}
	r.Idle(t, e)
}

func testRepairFails(t *testing.T, r *Rig) {
	s := r.Coder.Scheme()
	if s.M == 0 {
		return
	}
	data := Data(large, 42)
	e := r.Write(t, data)
	lost := Subsets(r.Width, s.M, 1)[0]
	for _, op := range []memstore.Op{memstore.Create, memstore.Write, memstore.Commit, memstore.Ack} {
		release := r.Disks[r.Width].Inject(memstore.Fault{Op: op, After: 100})
		if op != memstore.Write {
			release()
			release = r.Disks[r.Width].Inject(memstore.Fault{Op: op})
		}
		if _, err := r.Coder.Repair(t.Context(), r.repair(e, lost)); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("repair while %v fails: got error %v, want ErrUnavailable", op, err)
		}
		r.Idle(t, e)
		var asked []int
		spec := r.repair(e, lost[:1])
		spec.Substitute = func(shard int, _ core.Target, _ error) (core.Target, bool) {
			asked = append(asked, shard)
			return r.Target(2*r.Width - 1), true
		}
		if op == memstore.Create {
			fixed, err := r.Coder.Repair(t.Context(), spec)
			if err != nil || fixed.Places[lost[0]].Disk != core.DiskID(2*r.Width) || !slices.Equal(asked, lost[:1]) {
				t.Errorf("repair with a substitute: got %+v, error %v, asked for %v", fixed.Places, err, asked)
			} else {
				r.forget(t, fixed, lost[:1])
			}
		}
		release()
	}
	// The sources fail in the middle.
	var undo []func()
	for i := range r.Width {
		undo = append(undo, r.Disks[i].Inject(memstore.Fault{Op: memstore.Read, After: large / int64(s.Data()) / 2}))
	}
	if _, err := r.Coder.Repair(t.Context(), r.repair(e, lost)); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("repair while the sources fail: got error %v, want ErrUnavailable", err)
	}
	for _, u := range undo {
		u()
	}
	r.Idle(t, e)
}

func testRepairPartial(t *testing.T, r *Rig) {
	s := r.Coder.Scheme()
	if s.M < 2 {
		return
	}
	data := Data(large, 43)
	e := r.Write(t, data)
	lost := []int{0, 1}
	release := r.Disks[r.Width].Inject(memstore.Fault{Op: memstore.Commit})
	spec := r.repair(e, lost)
	spec.Min = 1
	fixed, err := r.Coder.Repair(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if fixed.Places[0] != e.Places[0] || fixed.Places[1].Disk != core.DiskID(r.Width+2) {
		t.Errorf("places are %+v, want shard 0 where it was and shard 1 on disk %d", fixed.Places, r.Width+2)
	}
	release()
	r.wantEqual(t, e, fixed, 1)
	r.forget(t, fixed, []int{1})
	r.Idle(t, e)
}

// testRepairFaults repairs from sources of which one is damaged as well.
func testRepairFaults(t *testing.T, r *Rig) {
	s := r.Coder.Scheme()
	if s.M < 2 {
		return
	}
	data := Data(large, 44)
	e := r.Write(t, data)
	if err := r.Disk(e, 1).Corrupt(e.Shard(1), int64(large/s.Data()/2)); err != nil {
		t.Fatal(err)
	}
	var faults Faults
	spec := r.repair(e, []int{0})
	spec.OnFault = faults.On
	if !s.EC {
		for i := 2; i < r.Width; i++ {
			spec.Src[i] = r.Disk(e, i)
		}
	}
	fixed, err := r.Coder.Repair(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	r.wantEqual(t, e, fixed, 0)
	if errs, once := faults.Get(); s.EC && (!errors.Is(errs[1], core.ErrCorrupt) || !once) {
		t.Errorf("faults: got %v, want ErrCorrupt of shard 1, once", errs)
	}
}

// testMove makes a shard anew that is still there: only itself is read.
func testMove(t *testing.T, r *Rig) {
	data := Data(large, 45)
	e := r.Write(t, data)
	for i := range min(r.Width, 6) {
		spec := r.repair(e, []int{i})
		spec.Src = r.Sources(e)
		before := r.bytesRead()
		moved, err := r.Coder.Repair(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		var total, own int64
		for j, n := range r.bytesRead() {
			total += n - before[j]
			if j == i {
				own = n - before[j]
			}
		}
		size := int64(r.shardSize(t, e, i))
		if total != size || r.Coder.Scheme().EC && own != size {
			t.Errorf("move shard %d: %d bytes were read, %d of them from itself; want %d, all from itself", i, total, own, size)
		}
		r.wantEqual(t, e, moved, i)
		r.Check(t, r.spec(moved), data)
		r.forget(t, moved, []int{i})

		// That it is slow is no reason to fail when nothing else can be reached.
		spec.Src = make([]core.Store, r.Width)
		spec.Src[i] = r.Disk(e, i)
		release := r.Disk(e, i).Inject(memstore.Fault{Op: memstore.Read, Delay: 5 * Hedge})
		if moved, err = r.Coder.Repair(t.Context(), spec); err != nil {
			t.Fatalf("move shard %d while all others are down: %v", i, err)
		}
		release()
		r.wantEqual(t, e, moved, i)
		r.forget(t, moved, []int{i})
	}
	if s := r.Coder.Scheme(); s.M > 0 { // and when it turns out to be damaged, the others help
		if err := r.Disk(e, 0).Corrupt(e.Shard(0), int64(large/s.Data()/2)); err != nil {
			t.Fatal(err)
		}
		spec := r.repair(e, []int{0})
		spec.Src = r.Sources(e)
		moved, err := r.Coder.Repair(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		r.Check(t, r.spec(moved), data)
		r.forget(t, moved, []int{0})
	}
	r.Idle(t, e)
}
