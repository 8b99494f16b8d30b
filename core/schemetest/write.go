package schemetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memstore"
)

// large is the size of an extent that is too large to be kept in memory.
const large = 8*Chunk + 12345

// sizes are sizes around all borders of the layouts.
func sizes(s core.Scheme) []int {
	all := []int{1, 2, 63, 64, 65, 1000}
	for _, unit := range []int{Chunk / 16, Chunk / 8, Chunk / 4, Chunk} {
		for _, n := range []int{unit, unit * s.Data(), 3 * unit * s.Data()} {
			all = append(all, n-1, n, n+1)
		}
	}
	if s.Width() > 6 {
		all = []int{1, Chunk/16 + 1, s.Data()*Chunk/16 - 1, s.Data() * Chunk / 16, 2*Chunk + 1}
	}
	all = slices.DeleteFunc(all, func(n int) bool { return n > 4*Chunk })
	slices.Sort(all)
	return slices.Compact(all)
}

func testSizes(t *testing.T, r *Rig) {
	s := r.Coder.Scheme()
	data := Data(4*Chunk, 1)
	var extents []core.Extent
	for _, n := range sizes(s) {
		before := r.stored()
		e := r.Write(t, data[:n])
		extents = append(extents, e)
		if e.Scheme != s || len(e.Places) != r.Width {
			t.Fatalf("write %d bytes: got scheme %v and %d places, want %v and %d", n, e.Scheme, len(e.Places), s, r.Width)
		}
		r.Check(t, core.ReadSpec{Extent: e, Src: r.Sources(e)}, data[:n])
		least := (n*r.Width + s.Data() - 1) / s.Data()
		if got := r.stored() - before; got < int64(least) || got > int64(least+r.Width*64) {
			t.Errorf("write %d bytes: %d bytes stored, want %d and at most 64 more for each shard", n, got, least)
		}
	}
	r.Idle(t, extents...)

	e, err := r.Coder.Write(t.Context(), r.Spec(), bytes.NewReader(nil))
	if err != nil || e.Size != 0 || e.Places != nil {
		t.Errorf("write nothing: got size %d, places %v, error %v; want nothing at all", e.Size, e.Places, err)
	}
	r.Idle(t, extents...)
}

// stored is the number of bytes in all shards.
func (r *Rig) stored() (n int64) {
	for _, d := range r.Disks {
		for info := range d.List(core.ShardID{}) {
			n += info.Size
		}
	}
	return n
}

func testHints(t *testing.T, r *Rig) {
	data := Data(2*Chunk+777, 2)
	var extents []core.Extent
	for _, hint := range []int64{-1, 0, 1, 1000, Chunk, int64(len(data)) - 1, int64(len(data)), int64(len(data)) + 1, 1 << 40} {
		for _, n := range []int{100, len(data)} {
			w := r.Spec()
			w.Size = hint
			e, err := r.Coder.Write(t.Context(), w, iotest.HalfReader(bytes.NewReader(data[:n])))
			if err != nil {
				t.Fatalf("write %d bytes with the hint %d: %v", n, hint, err)
			}
			r.Check(t, core.ReadSpec{Extent: e, Src: r.Sources(e)}, data[:n])
			extents = append(extents, e)
			if size := int64(r.shardSize(t, e, 0)); hint == int64(n) && r.Disks[0].Stats().SizeHint != size {
				t.Errorf("write %d bytes: the disk was told to expect %d bytes, want %d", n, r.Disks[0].Stats().SizeHint, size)
			}
		}
	}
	r.Idle(t, extents...)
}

func testLimit(t *testing.T, r *Rig) {
	data := Data(3*Chunk, 3)
	const limit = Chunk + 333
	src := bytes.NewReader(data)
	var extents []core.Extent
	for rest := data; ; {
		w := r.Spec()
		w.Limit, w.Size = limit, int64(len(rest))
		e, err := r.Coder.Write(t.Context(), w, src)
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(min(limit, len(rest))); e.Size != want {
			t.Fatalf("write with limit %d: got %d bytes, want %d", limit, e.Size, want)
		}
		if e.Size == 0 {
			break
		}
		r.Check(t, core.ReadSpec{Extent: e, Src: r.Sources(e)}, rest[:e.Size])
		if size := int64(r.shardSize(t, e, 0)); r.Disks[0].Stats().SizeHint != size {
			t.Errorf("write with limit %d: the disk was told to expect %d bytes, want %d", limit, r.Disks[0].Stats().SizeHint, size)
		}
		extents = append(extents, e)
		rest = rest[e.Size:]
	}
	r.Idle(t, extents...)
}

func testMeta(t *testing.T, r *Rig) {
	w := r.Spec()
	w.Extent = core.ExtentID{9, 8, 7}
	e, err := r.Coder.Write(t.Context(), w, bytes.NewReader(Data(1000, 4)))
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != w.Extent {
		t.Errorf("extent: got %x, want the one that was asked for, %x", e.ID, w.Extent)
	}
	for i := range r.Width {
		want := w.Meta
		want.ID, want.Scheme = e.Shard(i), r.Coder.Scheme()
		for info := range r.Disks[i].List(core.ShardID{}) {
			if info.ShardMeta != want {
				t.Errorf("shard %d: got meta %+v, want %+v", i, info.ShardMeta, want)
			}
		}
	}
	if f := r.Write(t, []byte("other")); f.ID == e.ID || f.ID == (core.ExtentID{}) {
		t.Errorf("extent without a name got %x, want a fresh one", f.ID)
	}
}

func testSourceFails(t *testing.T, r *Rig) {
	data := Data(large, 5)
	for _, n := range []int{0, 100, Chunk, len(data) - 1} {
		// A cut-off body must not be taken for a complete one.
		for _, want := range []error{io.ErrUnexpectedEOF, errors.New("broken")} {
			src := io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(want))
			_, err := r.Coder.Write(t.Context(), r.Spec(), src)
			if !errors.Is(err, want) {
				t.Errorf("source fails after %d bytes: got error %v, want %v", n, err, want)
			}
		}
	}
	r.Idle(t)
}

func testWriteCancelled(t *testing.T, r *Rig) {
	for _, op := range []memstore.Op{memstore.Create, memstore.Write, memstore.Commit} {
		release := r.Disks[0].Inject(memstore.Fault{Op: op, Stall: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		began := Clock{}.Now()
		var asked []int
		w := r.Spec()
		w.Substitute = r.Substitutes(&asked)
		_, err := r.Coder.Write(ctx, w, bytes.NewReader(Data(large, 6)))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("write cancelled while %v stalls: got error %v, want the context's", op, err)
		}
		if took := (Clock{}).Now().Sub(began); took > 2*time.Second {
			t.Errorf("write cancelled after 1s returned after %v", took)
		}
		if len(asked) != 0 {
			t.Errorf("write cancelled: substitutes were asked for shards %v", asked)
		}
		cancel()
		release()
		r.Idle(t)
	}
}

func testMissingTargets(t *testing.T, r *Rig) {
	s := r.Coder.Scheme()
	data := Data(Chunk+1, 7)
	var extents []core.Extent
	for _, lost := range r.losses() {
		w := r.Spec()
		w.Min = s.Data()
		for _, i := range lost {
			w.Dst[i] = core.Target{}
		}
		e, err := r.Coder.Write(t.Context(), w, bytes.NewReader(data))
		if err != nil {
			t.Fatalf("write without disks for %v: %v", lost, err)
		}
		for i := range r.Width {
			if missing := e.Places[i].Disk == 0; missing != slices.Contains(lost, i) {
				t.Errorf("write without disks for %v: place of shard %d is %+v", lost, i, e.Places[i])
			}
		}
		r.Check(t, core.ReadSpec{Extent: e, Src: r.Sources(e)}, data)
		extents = append(extents, e)
	}
	w := r.Spec()
	w.Dst[0] = core.Target{}
	if _, err := r.Coder.Write(t.Context(), w, bytes.NewReader(data)); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("write that needs all shards without a disk for one: got error %v, want ErrUnavailable", err)
	}
	r.Idle(t, extents...)
}

// wantSubstituted writes data while a disk is faulty and wants the shard on the
// first spare disk.
func wantSubstituted(t *testing.T, r *Rig, data []byte, f memstore.Fault) {
	t.Helper()
	release := r.Disks[0].Inject(f)
	var asked []int
	w := r.Spec()
	w.Substitute = r.Substitutes(&asked)
	e, err := r.Coder.Write(t.Context(), w, bytes.NewReader(data))
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	if got, want := e.Places[0].Disk, core.DiskID(r.Width+1); got != want || e.Missing() != 0 {
		t.Fatalf("shard 0 is on disk %d and %d shards are missing, want disk %d and none", got, e.Missing(), want)
	}
	if !slices.Equal(asked, []int{0}) {
		t.Errorf("substitutes were asked for shards %v, want once for 0", asked)
	}
	r.Check(t, core.ReadSpec{Extent: e, Src: r.Sources(e)}, data)
	release()
	r.Idle(t, e)
}

// wantMissing writes data while a disk is faulty and wants its shard missing;
// where one shard is all there is, it wants an error.
func wantMissing(t *testing.T, r *Rig, data []byte, f memstore.Fault) {
	t.Helper()
	s := r.Coder.Scheme()
	victim := r.Width - 1
	release := r.Disks[victim].Inject(f)
	w := r.Spec()
	w.Min = s.MinWrite()
	if s.M == 1 {
		w.Min = s.Data()
	}
	e, err := r.Coder.Write(t.Context(), w, bytes.NewReader(data))
	if s.M == 0 {
		if !errors.Is(err, core.ErrUnavailable) {
			t.Fatalf("write without redundancy: got error %v, want ErrUnavailable", err)
		}
		release()
		r.Idle(t)
		return
	}
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	if e.Places[victim] != (core.Place{}) || e.Missing() != 1 {
		t.Fatalf("places are %+v, want only that of shard %d missing", e.Places, victim)
	}
	r.Check(t, core.ReadSpec{Extent: e, Src: r.Sources(e)}, data)
	release()
	r.Idle(t, e)
}

func testCreateFails(t *testing.T, r *Rig) {
	wantSubstituted(t, r, Data(large, 8), memstore.Fault{Op: memstore.Create, Err: core.ErrDiskFailed})
}

func testWriteFailsEarly(t *testing.T, r *Rig) {
	wantSubstituted(t, r, Data(10_000, 9), memstore.Fault{Op: memstore.Write, After: 100})
}

func testWriteFailsLate(t *testing.T, r *Rig) {
	after := int64(large / r.Coder.Scheme().Data() * 3 / 4)
	wantMissing(t, r, Data(large, 10), memstore.Fault{Op: memstore.Write, After: after})
}

func testCommitFails(t *testing.T, r *Rig) {
	wantSubstituted(t, r, Data(10_000, 11), memstore.Fault{Op: memstore.Commit})
}

func testAckLost(t *testing.T, r *Rig) {
	wantSubstituted(t, r, Data(10_000, 12), memstore.Fault{Op: memstore.Ack})
}

func testTooFew(t *testing.T, r *Rig) {
	s := r.Coder.Scheme()
	for _, op := range []memstore.Op{memstore.Create, memstore.Write, memstore.Commit, memstore.Ack} {
		for _, data := range [][]byte{Data(1000, 13), Data(large, 13)} {
			var releases []func()
			for i := range s.M + 1 {
				releases = append(releases, r.Disks[i].Inject(memstore.Fault{Op: op}))
			}
			w := r.Spec()
			w.Min, w.Substitute = s.Data(), nil
			_, err := r.Coder.Write(t.Context(), w, bytes.NewReader(data))
			if !errors.Is(err, core.ErrUnavailable) {
				t.Errorf("%v fails on %d disks: got error %v, want ErrUnavailable", op, s.M+1, err)
			}
			for _, release := range releases {
				release()
			}
			r.Idle(t)
		}
	}
}

func testDiskFull(t *testing.T, r *Rig) {
	for _, d := range r.Disks {
		d.Inject(memstore.Fault{Op: memstore.Create, Err: core.ErrNoSpace})
	}
	_, err := r.Coder.Write(t.Context(), r.Spec(), bytes.NewReader(Data(1000, 14)))
	if !errors.Is(err, core.ErrNoSpace) {
		t.Errorf("write to full disks: got error %v, want ErrNoSpace", err)
	}
	r.Idle(t)
}

// within fails the test unless f takes at least and at most so long.
func within(t *testing.T, least, most time.Duration, f func()) {
	t.Helper()
	began := Clock{}.Now()
	f()
	if took := (Clock{}).Now().Sub(began); took < least || took > most {
		t.Errorf("it took %v, want %v to %v", took, least, most)
	}
}

func testCreateStalls(t *testing.T, r *Rig) {
	within(t, StallAfter, StallAfter+time.Second, func() {
		wantSubstituted(t, r, Data(large, 15), memstore.Fault{Op: memstore.Create, Stall: true})
	})
}

func testWriteStalls(t *testing.T, r *Rig) {
	most := StallAfter + time.Second
	if r.Coder.Scheme().M == 0 {
		most = 4 * StallAfter
	}
	within(t, StallAfter, most, func() {
		wantMissing(t, r, Data(large, 16), memstore.Fault{Op: memstore.Write, After: large / int64(r.Coder.Scheme().Data()) * 3 / 4, Stall: true})
	})
}

// testWriteHangs has a device that does not even notice that it is given up.
func testWriteHangs(t *testing.T, r *Rig) {
	most := StallAfter + time.Second
	if r.Coder.Scheme().M == 0 {
		most = 5 * StallAfter // the removal is waited for as well
	}
	within(t, StallAfter, most, func() {
		wantMissing(t, r, Data(large, 17), memstore.Fault{Op: memstore.Write, After: large / int64(r.Coder.Scheme().Data()) * 3 / 4, Stall: true, Deaf: true})
	})
	within(t, StallAfter, StallAfter+time.Second, func() {
		wantSubstituted(t, r, Data(1000, 17), memstore.Fault{Op: memstore.Write, Stall: true, Deaf: true})
	})
}

func testCommitStalls(t *testing.T, r *Rig) {
	for _, op := range []memstore.Op{memstore.Commit, memstore.Ack} {
		for _, deaf := range []bool{false, true} {
			within(t, StallAfter, 5*StallAfter, func() {
				wantMissing(t, r, Data(large, 18), memstore.Fault{Op: op, Stall: true, Deaf: deaf})
			})
			within(t, StallAfter, StallAfter+time.Second, func() {
				wantSubstituted(t, r, Data(1000, 18), memstore.Fault{Op: op, Stall: true, Deaf: deaf})
			})
		}
	}
}

// testLateCommit has a disk whose commit takes effect after it was given up, while
// the substitute is still writing.
func testLateCommit(t *testing.T, r *Rig) {
	for _, op := range []memstore.Op{memstore.Commit, memstore.Ack} {
		release := r.Disks[0].Inject(memstore.Fault{Op: op, Stall: true, Deaf: true})
		undo := r.Disks[r.Width].Inject(memstore.Fault{Op: memstore.Create, Delay: StallAfter / 2})
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = Clock{}.Wait(t.Context(), StallAfter+time.Second)
			release()
		})
		data := Data(1000, 35)
		var e core.Extent
		within(t, StallAfter*3/2, StallAfter*3/2+time.Second, func() { e = r.Write(t, data) })
		wg.Wait()
		if got, want := e.Places[0].Disk, core.DiskID(r.Width+1); got != want {
			t.Errorf("shard 0 is on disk %d, want the substitute, %d", got, want)
		}
		undo()
		r.Check(t, r.spec(e), data)
		r.Idle(t, e)
	}
}

func testAllStall(t *testing.T, r *Rig) {
	var releases []func()
	for _, d := range r.Disks {
		releases = append(releases, d.Inject(memstore.Fault{Op: memstore.Write, After: 1000, Stall: true, Deaf: true}))
	}
	w := r.Spec()
	w.Min, w.Substitute = r.Coder.Scheme().Data(), nil
	within(t, 3*StallAfter, 5*StallAfter, func() {
		_, err := r.Coder.Write(t.Context(), w, bytes.NewReader(Data(large, 19)))
		if !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("write while all disks hang: got error %v, want ErrUnavailable", err)
		}
	})
	for _, release := range releases {
		release()
	}
	r.Idle(t)
}

// slowReader waits before each read.
type slowReader struct {
	io.Reader
	ctx  context.Context
	wait time.Duration
}

func (s slowReader) Read(p []byte) (int, error) {
	if err := (Clock{}).Wait(s.ctx, s.wait); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}

// testSlowSource has a client that is far slower than any patience with disks.
func testSlowSource(t *testing.T, r *Rig) {
	data := Data(large, 20)
	e, err := r.Coder.Write(t.Context(), r.Spec(), slowReader{bytes.NewReader(data), t.Context(), 5 * StallAfter})
	if err != nil {
		t.Fatal(err)
	}
	if e.Missing() != 0 {
		t.Errorf("%d shards are missing because the source was slow, want none", e.Missing())
	}
	r.Check(t, core.ReadSpec{Extent: e, Src: r.Sources(e)}, data)
	r.Idle(t, e)
}

// peak is a source and sink of zeros that notes how much memory is in use.
type peak struct {
	r    *Rig
	left int
	max  int64
}

func (p *peak) Read(b []byte) (int, error) {
	p.max = max(p.max, p.r.inUse())
	n := min(p.left, len(b))
	p.left -= n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (p *peak) Write(b []byte) (int, error) {
	p.max = max(p.max, p.r.inUse())
	return len(b), nil
}

// testMemory wants no more memory for a large extent than a few chunks, with
// disks that are slower than source and sink.
func testMemory(t *testing.T, r *Rig) {
	const size = 100 * Chunk
	s := r.Coder.Scheme()
	for i, d := range r.Disks {
		d.Inject(memstore.Fault{Op: memstore.Write | memstore.Read, Delay: time.Duration(i+1) * time.Millisecond})
	}
	shards := int64(Chunk)
	if s.EC {
		shards = Chunk * int64(r.Width) / int64(s.K)
	}
	written := peak{r: r, left: size}
	e, err := r.Coder.Write(t.Context(), r.Spec(), &written)
	if err != nil {
		t.Fatal(err)
	}
	// Four chunks, of which one is being filled; a buffer may be a quarter larger.
	if most := 5 * shards; written.max > most || written.max < shards {
		t.Errorf("write: %d bytes were in use, want %d to %d", written.max, shards, most)
	}
	x, err := r.Coder.Open(t.Context(), r.spec(e))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	stream := x.Reader(t.Context(), 0, size)
	defer func() { _ = stream.Close() }()
	read := peak{r: r}
	if _, err := io.Copy(&read, stream); err != nil {
		t.Fatal(err)
	}
	if most := int64(5 * Chunk); read.max > most || read.max < Chunk {
		t.Errorf("read: %d bytes were in use, want %d to %d", read.max, Chunk, most)
	}
}

// testPipelines wants source and disks to work at the same time when writing, and
// several windows to be under way when reading.
func testPipelines(t *testing.T, r *Rig) {
	const chunks, latency = 30, 10 * time.Millisecond
	size := chunks * int64(Chunk)
	if s := r.Coder.Scheme(); s.EC { // so many stripes or windows
		e := r.Write(t, Data(1, 47))
		size = chunks * int64(e.Unit*s.K)
		r.forget(t, e, Subsets(r.Width, r.Width, 1)[0])
	}
	for _, d := range r.Disks {
		d.Inject(memstore.Fault{Op: memstore.Write | memstore.Read, Delay: latency})
	}
	data := Data(int(size), 47)
	var e core.Extent
	within(t, chunks*latency, (chunks+3)*latency, func() {
		var err error
		e, err = r.Coder.Write(t.Context(), r.Spec(), slowReader{bytes.NewReader(data), t.Context(), latency})
		if err != nil {
			t.Fatal(err)
		}
	})
	within(t, 0, (chunks/3+1)*latency, func() { r.Check(t, r.spec(e), data) })
}
