package schemetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memstore"
)

// spec reads e with all its shards.
func (r *Rig) spec(e core.Extent) core.ReadSpec { return core.ReadSpec{Extent: e, Src: r.Sources(e)} }

// cuts are random ranges of an extent of that size, those at borders included.
func cuts(size, n int) [][2]int64 {
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	all := [][2]int64{{0, 0}, {0, 1}, {0, int64(size)}, {int64(size) - 1, 1}, {int64(size), 0}}
	borders := []int{Chunk / 16, Chunk / 8, Chunk / 4, Chunk}
	for range n {
		off := rng.IntN(size)
		if rng.IntN(2) == 0 {
			b := borders[rng.IntN(len(borders))]
			off = max(0, min(size-1, off/b*b+rng.IntN(3)-1))
		}
		length := rng.IntN(size - off + 1)
		if rng.IntN(2) == 0 {
			length = min(length, rng.IntN(1000))
		}
		all = append(all, [2]int64{int64(off), int64(length)})
	}
	return all
}

func testRanges(t *testing.T, r *Rig) {
	for _, size := range []int{1, 1000, 20_001, 3*Chunk + 4321} {
		data := Data(size, 21)
		e := r.Write(t, data)
		x, err := r.Coder.Open(t.Context(), r.spec(e))
		if err != nil {
			t.Fatal(err)
		}
		if x.Size() != int64(size) {
			t.Errorf("size: got %d, want %d", x.Size(), size)
		}
		for i, c := range cuts(size, 100) {
			want := data[c[0] : c[0]+c[1]]
			s := x.Reader(t.Context(), c[0], c[1])
			var got []byte
			var err error
			switch i % 3 {
			case 0:
				got, err = io.ReadAll(s)
			case 1:
				got, err = io.ReadAll(iotest.OneByteReader(io.LimitReader(s, 500)))
				want = want[:min(500, len(want))]
			case 2:
				var b bytes.Buffer
				var n int64
				n, err = s.(io.WriterTo).WriteTo(&b)
				got = b.Bytes()
				if n != c[1] {
					t.Errorf("range %v of %d: WriteTo returned %d", c, size, n)
				}
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("range %v of %d: got %d bytes and error %v, want %d equal bytes", c, size, len(got), err, len(want))
			}
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if err := x.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// testNow reads from disks that have all in memory: nobody is asked in a way
// that may wait. What is damaged is read by another.
func testNow(t *testing.T, r *Rig) {
	size := 3*Chunk + 4321
	data := Data(size, 25)
	e := r.Write(t, data)
	for _, d := range r.Disks {
		d.SetNow(true)
	}
	for _, c := range cuts(size, 50) {
		got, err := r.Read(t.Context(), r.spec(e), c[0], c[1])
		if err != nil || !bytes.Equal(got, data[c[0]:c[0]+c[1]]) {
			t.Fatalf("range %v: got %d bytes and error %v", c, len(got), err)
		}
	}
	for i, d := range r.Disks {
		if n := d.Stats().Reads; n != 0 {
			t.Errorf("disk %d: %d reads that may wait, want none", i+1, n)
		}
	}
	var faults Faults
	s := r.spec(e)
	s.OnFault = faults.On
	if err := r.Disk(e, 0).Corrupt(e.Shard(0), 100); err != nil {
		t.Fatal(err)
	}
	got, err := r.Read(t.Context(), s, 0, int64(size))
	if r.Coder.Scheme().M == 0 {
		if !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("damaged: got %d bytes and error %v, want ErrCorrupt", len(got), err)
		}
	} else if err != nil || !bytes.Equal(got, data) {
		t.Errorf("damaged: got %d bytes and error %v, want all of them", len(got), err)
	}
	// A replica that is not asked first is not looked at.
	if errs, _ := faults.Get(); r.Coder.Scheme().EC && !errors.Is(errs[0], core.ErrCorrupt) {
		t.Errorf("damaged: got faults %v, want one of shard 0", errs)
	}
	// Where only some are in memory the others are asked as ever.
	r.Disk(e, 1%r.Width).SetNow(false)
	if r.Coder.Scheme().M > 0 {
		r.Check(t, r.spec(e), data)
	}
	r.Idle(t, e)
}

func testBadRanges(t *testing.T, r *Rig) {
	e := r.Write(t, Data(1000, 22))
	x, err := r.Coder.Open(t.Context(), r.spec(e))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]int64{{-1, 5}, {0, 1001}, {1000, 1}, {5, -1}, {1 << 62, 1 << 62}, {5000, 0}} {
		if _, err := readRange(t.Context(), x, c[0], c[1]); !errors.Is(err, core.ErrRange) {
			t.Errorf("range %v of 1000: got error %v, want ErrRange", c, err)
		}
	}
	s := x.Reader(t.Context(), 0, 1000)
	if _, err := io.CopyN(io.Discard, s, 10); err != nil {
		t.Error(err)
	}
	_ = s.Close()
	if n, err := s.Read(make([]byte, 10)); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read after close: got %d bytes and error %v, want an error", n, err)
	}
	_ = x.Close()
	if _, err := readRange(t.Context(), x, 0, 10); err == nil {
		t.Error("read of a closed extent: got no error")
	}
	r.Idle(t, e)
}

// testBytesRead wants healthy reads to take what they need, from the first K
// shards, and not a byte more.
func testBytesRead(t *testing.T, r *Rig) {
	size := 3*Chunk + 4321
	e := r.Write(t, Data(size, 23))
	for _, c := range cuts(size, 50) {
		before := r.bytesRead()
		if _, err := r.Read(t.Context(), r.spec(e), c[0], c[1]); err != nil {
			t.Fatal(err)
		}
		total := int64(0)
		for i, n := range r.bytesRead() {
			total += n - before[i]
			if r.Coder.Scheme().EC && i >= r.Coder.Scheme().K && n != 0 {
				t.Fatalf("range %v: %d bytes of parity shard %d were read", c, n, i)
			}
		}
		if total != c[1] {
			t.Errorf("range %v: %d bytes were read from disks, want %d", c, total, c[1])
		}
	}
	r.Idle(t, e)
}

func testConcurrentReaders(t *testing.T, r *Rig) {
	size := 3*Chunk + 99
	data := Data(size, 24)
	e := r.Write(t, data)
	spec := r.spec(e)
	if r.Coder.Scheme().M > 0 {
		spec.Src[0] = nil
	}
	x, err := r.Coder.Open(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i, c := range cuts(size, 20) {
		wg.Go(func() {
			got, err := readRange(t.Context(), x, c[0], c[1])
			if err != nil || !bytes.Equal(got, data[c[0]:c[0]+c[1]]) {
				t.Errorf("reader %d of range %v: got %d bytes and error %v", i, c, len(got), err)
			}
		})
	}
	wg.Wait()
	_ = x.Close()
	r.Idle(t, e)
}

// loss is a way in which a shard can be lost.
type loss struct {
	name string
	// do loses shard i, and returns how to undo that. It may change the spec.
	do func(r *Rig, s *core.ReadSpec, i int) (undo func())
	// err is what is reported of it; nil: nothing.
	err error
}

func losses() []loss {
	inject := func(f memstore.Fault) func(*Rig, *core.ReadSpec, int) func() {
		return func(r *Rig, s *core.ReadSpec, i int) func() { return r.Disk(s.Extent, i).Inject(f) }
	}
	return []loss{
		{"no store", func(_ *Rig, s *core.ReadSpec, i int) func() { s.Src[i] = nil; return func() {} }, nil},
		{"gone", func(_ *Rig, s *core.ReadSpec, i int) func() {
			// Another nonce names a shard that is not there.
			s.Extent.Places = slices.Clone(s.Extent.Places)
			s.Extent.Places[i].Nonce[0]++
			return func() {}
		}, core.ErrNotFound},
		{"down", inject(memstore.Fault{Op: memstore.Any}), core.ErrUnavailable},
		{"unreadable", inject(memstore.Fault{Op: memstore.Read, Err: core.ErrDiskFailed}), core.ErrDiskFailed},
		{"damaged", func(r *Rig, s *core.ReadSpec, i int) func() {
			id := s.Extent.Shard(i)
			if err := r.Disk(s.Extent, i).Corrupt(id, 0); err != nil {
				panic(err)
			}
			return func() { _ = r.Disk(s.Extent, i).Corrupt(id, 0) }
		}, core.ErrCorrupt},
	}
}

func testLosses(t *testing.T, r *Rig) {
	s := r.Coder.Scheme()
	data := Data(Chunk+7_001, 25)
	e := r.Write(t, data)
	for _, way := range losses() {
		for _, lost := range r.losses() {
			spec := r.spec(e)
			var faults Faults
			spec.OnFault = faults.On
			var undo []func()
			for _, i := range lost {
				undo = append(undo, way.do(r, &spec, i))
			}
			t.Logf("%s: %v", way.name, lost)
			r.Check(t, spec, data)
			for _, c := range cuts(len(data), 3) {
				got, err := r.Read(t.Context(), spec, c[0], c[1])
				if err != nil || !bytes.Equal(got, data[c[0]:c[0]+c[1]]) {
					t.Errorf("range %v: got %d bytes and error %v", c, len(got), err)
				}
			}
			for _, u := range undo {
				u()
			}
			errs, _ := faults.Get()
			for i, err := range errs {
				if way.err == nil || !slices.Contains(lost, i) || !errors.Is(err, way.err) {
					t.Errorf("fault reported of shard %d: %v, want %v of %v", i, err, way.err, lost)
				}
			}
			if way.err != nil && s.EC && lost[0] < s.K && errs[lost[0]] == nil {
				t.Errorf("no fault was reported of data shard %d", lost[0])
			}
		}
	}
	r.Idle(t, e)
}

func testTooManyLosses(t *testing.T, r *Rig) {
	s := r.Coder.Scheme()
	data := Data(Chunk+7_001, 26)
	e := r.Write(t, data)
	for _, way := range losses() {
		for _, lost := range Subsets(r.Width, s.M+1, 6) {
			spec := r.spec(e)
			var undo []func()
			for _, i := range lost {
				undo = append(undo, way.do(r, &spec, i))
			}
			want := core.ErrUnavailable
			if errors.Is(way.err, core.ErrCorrupt) {
				want = core.ErrCorrupt
			}
			got, err := r.Read(t.Context(), spec, 0, e.Size)
			if !errors.Is(err, want) || errors.Is(err, core.ErrNotFound) {
				t.Errorf("%s, %v: got error %v, want %v", way.name, lost, err, want)
			}
			if !bytes.Equal(got, data[:len(got)]) {
				t.Errorf("%s, %v: got wrong bytes before the error", way.name, lost)
			}
			for _, u := range undo {
				u()
			}
		}
	}
	// Damage is no reason for ErrCorrupt where a disk's return would help.
	if s.M > 0 {
		spec := r.spec(e)
		if err := r.Disk(e, 0).Corrupt(e.Shard(0), 0); err != nil {
			t.Fatal(err)
		}
		for i := range s.M {
			spec.Src[i+1] = nil
		}
		if _, err := r.Read(t.Context(), spec, 0, e.Size); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("one shard damaged and %d down: got error %v, want ErrUnavailable", s.M, err)
		}
	}
	r.Idle(t, e)
}

// testScatteredDamage damages one block of every shard, no two at the same
// place: everything can still be read.
func testScatteredDamage(t *testing.T, r *Rig) {
	if r.Coder.Scheme().M == 0 || r.Width > 6 {
		return
	}
	data := Data(r.Coder.Scheme().Data()*(r.Width+1)*memstore.BlockSize, 27)
	e := r.Write(t, data)
	for i := range r.Width {
		if err := r.Disk(e, i).Corrupt(e.Shard(i), int64(i)*memstore.BlockSize+5); err != nil {
			t.Fatal(err)
		}
	}
	var faults Faults
	spec := r.spec(e)
	spec.OnFault = faults.On
	r.Check(t, spec, data)
	if _, once := faults.Get(); !once {
		t.Error("a shard was reported more than once")
	}
	if r.Coder.Scheme().M > 1 {
		fixed, err := r.Coder.Repair(t.Context(), r.repair(e, []int{0}))
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Width {
			if err := r.Disk(e, i).Corrupt(e.Shard(i), int64(i)*memstore.BlockSize+5); err != nil { // undo
				t.Fatal(err)
			}
		}
		r.wantEqual(t, e, fixed, 0)
		r.forget(t, fixed, []int{0})
	}
	r.Idle(t, e)
}

func testMidStream(t *testing.T, r *Rig) {
	s := r.Coder.Scheme()
	data := Data(large, 28)
	e := r.Write(t, data)
	for _, lost := range Subsets(r.Width, s.M, 4) {
		var undo []func()
		for j, i := range lost {
			after := int64(large/s.Data()/4) * int64(j+1) % int64(large/s.Data())
			undo = append(undo, r.Disk(e, i).Inject(memstore.Fault{Op: memstore.Read, After: after}))
		}
		t.Logf("lost: %v", lost)
		r.Check(t, r.spec(e), data)
		for _, u := range undo {
			u()
		}
	}
	// One too many: the stream must end in an error, after right bytes.
	var undo []func()
	for i := range s.M + 1 {
		undo = append(undo, r.Disk(e, i).Inject(memstore.Fault{Op: memstore.Read, After: int64(large / r.Width / 2)}))
	}
	got, err := r.Read(t.Context(), r.spec(e), 0, e.Size)
	if !errors.Is(err, core.ErrUnavailable) || !bytes.Equal(got, data[:len(got)]) || len(got) == len(data) {
		t.Errorf("%d shards fail in mid-stream: got %d of %d bytes and error %v", s.M+1, len(got), len(data), err)
	}
	for _, u := range undo {
		u()
	}
	r.Idle(t, e)
}

// slowRead reads e while M shards are held up by f, and wants that to cost
// little more than one hedge.
func slowRead(t *testing.T, r *Rig, f memstore.Fault) {
	t.Helper()
	s := r.Coder.Scheme()
	if s.M == 0 {
		return
	}
	data := Data(large, 29)
	e := r.Write(t, data)
	for _, lost := range Subsets(r.Width, s.M, 4) {
		var undo []func()
		for _, i := range lost {
			undo = append(undo, r.Disk(e, i).Inject(f))
		}
		// Each hedge may bring in others that are slow; but once they are known
		// to be, nothing waits for them any more.
		most := time.Duration(s.M) * Hedge
		if s.EC {
			most = min(most, 3*Hedge)
		}
		within(t, 0, most, func() { r.Check(t, r.spec(e), data) })
		if !f.Deaf {
			r.Coder.Wait() // for the losers, who were cancelled
		}
		for _, u := range undo {
			u()
		}
		r.Coder.Wait()
	}
	r.Idle(t, e)
}

func testSlowShard(t *testing.T, r *Rig) {
	slowRead(t, r, memstore.Fault{Op: memstore.Read, Stall: true})
	slowRead(t, r, memstore.Fault{Op: memstore.Read, After: 1000, Delay: time.Hour})
}

func testHungShard(t *testing.T, r *Rig) {
	slowRead(t, r, memstore.Fault{Op: memstore.Read, After: 1000, Stall: true, Deaf: true})
	// With all of them the read is given up, in the end.
	e := r.Write(t, Data(1000, 30))
	var undo []func()
	for i := range r.Width {
		undo = append(undo, r.Disk(e, i).Inject(memstore.Fault{Op: memstore.Read, Stall: true, Deaf: true}))
	}
	within(t, StallAfter, 2*StallAfter, func() {
		if _, err := r.Read(t.Context(), r.spec(e), 0, e.Size); !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("read while all disks hang: got error %v, want ErrUnavailable", err)
		}
	})
	for _, u := range undo {
		u()
	}
}

func testSlowOpen(t *testing.T, r *Rig) {
	slowRead(t, r, memstore.Fault{Op: memstore.Open, Stall: true})
	slowRead(t, r, memstore.Fault{Op: memstore.Open, Stall: true, Deaf: true})
}

func testReadCancelled(t *testing.T, r *Rig) {
	e := r.Write(t, Data(large, 31))
	for _, deaf := range []bool{false, true} {
		var undo []func()
		for i := range r.Width {
			undo = append(undo, r.Disk(e, i).Inject(memstore.Fault{Op: memstore.Read, After: 1000, Stall: true, Deaf: deaf}))
		}
		var faults Faults
		spec := r.spec(e)
		spec.OnFault = faults.On
		x, err := r.Coder.Open(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		within(t, time.Second, time.Second, func() {
			if _, err := readRange(ctx, x, 0, e.Size); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("cancelled read: got error %v, want the context's", err)
			}
		})
		cancel()
		_ = x.Close()
		for _, u := range undo {
			u()
		}
		r.Idle(t, e)
		if errs, _ := faults.Get(); len(errs) != 0 {
			t.Errorf("cancelled read: faults were reported: %v", errs)
		}
	}
	for i := range r.Width {
		r.Disk(e, i).Inject(memstore.Fault{Op: memstore.Open, Stall: true})
	}
	var faults Faults
	spec := r.spec(e)
	spec.OnFault = faults.On
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	within(t, time.Second, time.Second, func() {
		if _, err := r.Coder.Open(ctx, spec); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled open: got error %v, want the context's", err)
		}
	})
	r.Idle(t, e)
	if errs, _ := faults.Get(); len(errs) != 0 {
		t.Errorf("cancelled open: faults were reported: %v", errs)
	}
}

// testWrongSize has shards that are not what the extent says.
func testWrongSize(t *testing.T, r *Rig) {
	e := r.Write(t, Data(30_000, 32))
	for _, size := range []int64{130_000, 10_000} {
		e.Size = size
		if _, err := r.Read(t.Context(), r.spec(e), 0, 100); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("shards of an extent of 30000 bytes that claims to have %d: got error %v, want ErrCorrupt", size, err)
		}
	}
}

// testReturningDisk loses every disk for a while, one after the other.
func testReturningDisk(t *testing.T, r *Rig) {
	if r.Coder.Scheme().M == 0 {
		return
	}
	data := Data(large, 33)
	e := r.Write(t, data)
	x, err := r.Coder.Open(t.Context(), r.spec(e))
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Width {
		release := r.Disk(e, i).Inject(memstore.Fault{Op: memstore.Any})
		got, err := readRange(t.Context(), x, 0, e.Size)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("while disk %d is down, and others were before: got %d bytes and error %v", i+1, len(got), err)
		}
		r.Disk(e, i).Restart()
		release()
	}
	_ = x.Close()
	r.Idle(t, e)
}

func testBadSpecs(t *testing.T, r *Rig) {
	w := r.Spec()
	w.Dst = w.Dst[1:]
	if _, err := r.Coder.Write(t.Context(), w, bytes.NewReader(nil)); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("write with too few targets: got error %v, want ErrInvalid", err)
	}
	w = r.Spec()
	w.Dst[0].Disk = 0
	if _, err := r.Coder.Write(t.Context(), w, bytes.NewReader(nil)); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("write to a store without a disk number: got error %v, want ErrInvalid", err)
	}
	good := r.Write(t, Data(1000, 34))
	for name, change := range map[string]func(*core.ReadSpec){
		"too few stores": func(s *core.ReadSpec) { s.Src = s.Src[1:] },
		"too few places": func(s *core.ReadSpec) { s.Extent.Places = s.Extent.Places[1:] },
		"other scheme":   func(s *core.ReadSpec) { s.Extent.Scheme = core.ErasureCoded(9, 3) },
		"no size":        func(s *core.ReadSpec) { s.Extent.Size = 0 },
		"negative size":  func(s *core.ReadSpec) { s.Extent.Size = -1 },
	} {
		spec := r.spec(good)
		change(&spec)
		if _, err := r.Coder.Open(t.Context(), spec); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("open, %s: got error %v, want ErrInvalid", name, err)
		}
		repair := core.RepairSpec{ReadSpec: spec, Shards: []int{0}, Dst: []core.Target{r.Target(r.Width)}}
		if _, err := r.Coder.Repair(t.Context(), repair); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("repair, %s: got error %v, want ErrInvalid", name, err)
		}
	}
	for _, shards := range [][]int{nil, {-1}, {r.Width}, {0, 0}} {
		repair := core.RepairSpec{ReadSpec: r.spec(good), Shards: shards}
		for range shards {
			repair.Dst = append(repair.Dst, r.Target(r.Width))
		}
		if _, err := r.Coder.Repair(t.Context(), repair); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("repair of shards %v: got error %v, want ErrInvalid", shards, err)
		}
	}
	r.Idle(t, good)
}
