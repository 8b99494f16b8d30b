package schemetest

import (
	"bytes"
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memstore"
)

// Clock is the time of package time, which testing/synctest fakes in its bubble.
type Clock struct{}

// Now implements [core.Clock].
func (Clock) Now() time.Time {
	return time.Now() //nolint:forbidigo // this is the clock
}

// Boot implements [core.Clock].
func (c Clock) Boot() core.Instant { return core.Instant(c.Now().UnixNano()) }

// Wait implements [core.Clock].
func (Clock) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d) //nolint:forbidigo // this is the clock
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Rig is a coder with disks in memory: one for each shard, and as many spares.
// Disk i+1 gets shard i.
type Rig struct {
	Coder core.Coder
	Width int
	Disks []*memstore.Store

	want map[core.ShardID]int // the disks of the shards that Idle knows of
}

// NewRig returns a rig with empty disks.
func NewRig(c core.Coder) *Rig {
	r := &Rig{Coder: c, Width: c.Scheme().Width(), want: map[core.ShardID]int{}}
	for range 2 * r.Width {
		r.Disks = append(r.Disks, memstore.New(Clock{}))
	}
	return r
}

// Target is the disk of that index, which need not exist.
func (r *Rig) Target(i int) core.Target {
	return core.Target{Disk: core.DiskID(i + 1), Store: r.Disks[i]}
}

// Spec writes to the first disks, with the spares as substitutes in their order.
func (r *Rig) Spec() core.WriteSpec {
	w := core.WriteSpec{Size: -1, Meta: core.ShardMeta{Bucket: 7, Key: "key", Request: core.RequestID{1}}}
	for i := range r.Width {
		w.Dst = append(w.Dst, r.Target(i))
	}
	w.Substitute = r.Substitutes(new([]int))
	return w
}

// Substitutes hands out the spare disks in their order, and notes for which
// shards it was asked.
func (r *Rig) Substitutes(asked *[]int) func(int, core.Target, error) (core.Target, bool) {
	next := r.Width
	return func(shard int, _ core.Target, _ error) (core.Target, bool) {
		*asked = append(*asked, shard)
		if next == len(r.Disks) {
			return core.Target{}, false
		}
		next++
		return r.Target(next - 1), true
	}
}

// Sources are the stores that have the shards of e.
func (r *Rig) Sources(e core.Extent) []core.Store {
	src := make([]core.Store, len(e.Places))
	for i, p := range e.Places {
		if p.Disk != 0 {
			src[i] = r.Disks[p.Disk-1]
		}
	}
	return src
}

// Disk is the disk that has a shard of e.
func (r *Rig) Disk(e core.Extent, shard int) *memstore.Store {
	return r.Disks[e.Places[shard].Disk-1]
}

// Write writes data as an extent with all its shards.
func (r *Rig) Write(t testing.TB, data []byte) core.Extent {
	t.Helper()
	e, err := r.Coder.Write(t.Context(), r.Spec(), bytes.NewReader(data))
	if err != nil {
		t.Fatalf("write %d bytes: %v", len(data), err)
	}
	if e.Missing() != 0 || e.Size != int64(len(data)) {
		t.Fatalf("write %d bytes: got size %d and %d shards missing", len(data), e.Size, e.Missing())
	}
	return e
}

// Faults collects what a reader reports.
type Faults struct {
	mu     sync.Mutex
	errs   map[int]error
	repeat bool
}

// On is the hook.
func (f *Faults) On(shard int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.errs == nil {
		f.errs = map[int]error{}
	}
	if f.errs[shard] != nil {
		f.repeat = true
	}
	f.errs[shard] = err
}

// Get returns the reported shards with their errors, and whether each was
// reported once.
func (f *Faults) Get() (map[int]error, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.errs, !f.repeat
}

// Read opens an extent and reads a range of it.
func (r *Rig) Read(ctx context.Context, s core.ReadSpec, off, n int64) ([]byte, error) {
	x, err := r.Coder.Open(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { _ = x.Close() }()
	return readRange(ctx, x, off, n)
}

func readRange(ctx context.Context, x core.ExtentReader, off, n int64) ([]byte, error) {
	s := x.Reader(ctx, off, n)
	defer s.Close()
	b, err := io.ReadAll(s)
	return b, err
}

// Check fails the test unless the extent, read from src, is data.
func (r *Rig) Check(t testing.TB, s core.ReadSpec, data []byte) {
	t.Helper()
	got, err := r.Read(t.Context(), s, 0, int64(len(data)))
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("read: got %d bytes that differ from the %d written, first at %d", len(got), len(data), mismatch(got, data))
	}
}

func mismatch(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// Idle fails the test if a call to a disk is under way, if anything is open, or
// if the disks hold other shards than those of the extents, these and those of
// earlier calls.
func (r *Rig) Idle(t testing.TB, extents ...core.Extent) {
	t.Helper()
	r.Coder.Wait()
	for _, e := range extents {
		for i, p := range e.Places {
			if p.Disk != 0 {
				r.want[e.Shard(i)] = int(p.Disk)
			}
		}
	}
	missing := maps.Clone(r.want)
	if n := r.inUse(); n != 0 {
		t.Errorf("%d bytes of buffers are in use, want none", n)
	}
	for i, d := range r.Disks {
		if s := d.Stats(); s.Calls != 0 || s.Readers != 0 || s.Writers != 0 {
			t.Errorf("disk %d: %d calls, %d readers and %d writers are left, want none", i+1, s.Calls, s.Readers, s.Writers)
		}
		for info := range d.List(core.ShardID{}) {
			if missing[info.ID] != i+1 {
				t.Errorf("disk %d: shard %v is left behind", i+1, info.ID)
			}
			delete(missing, info.ID)
		}
	}
	for id, disk := range missing {
		t.Errorf("disk %d: shard %v is not there", disk, id)
	}
}

// inUse is the number of bytes in the coder's buffers, if it tells that.
func (r *Rig) inUse() int64 {
	if m, ok := r.Coder.(interface{ InUse() int64 }); ok {
		return m.InUse()
	}
	return 0
}

// bytesRead returns the bytes read from each disk so far.
func (r *Rig) bytesRead() []int64 {
	n := make([]int64, len(r.Disks))
	for i, d := range r.Disks {
		n[i] = d.Stats().Read
	}
	return n
}

// Data returns n random bytes, the same for the same seed.
func Data(n int, seed uint64) []byte {
	b := make([]byte, n)
	var s [32]byte
	s[0], s[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(s).Read(b)
	return b
}

// Subsets returns sets of n of the numbers below width: all of them if there are
// at most limit, else as many random ones.
func Subsets(width, n, limit int) [][]int {
	var all [][]int
	var grow func(from int, set []int)
	grow = func(from int, set []int) {
		if len(set) == n {
			all = append(all, slices.Clone(set))
			return
		}
		for i := from; i < width && len(all) <= limit; i++ {
			grow(i+1, append(set, i))
		}
	}
	grow(0, nil)
	if len(all) <= limit {
		return all
	}
	rng := rand.New(rand.NewPCG(uint64(width), uint64(n)))
	all = all[:0]
	for range limit {
		set := rng.Perm(width)[:n]
		slices.Sort(set)
		all = append(all, set)
	}
	return all
}

// losses are the sets of shards that the suite loses: of narrow schemes every
// set of at most M, of wide ones some.
func (r *Rig) losses() (all [][]int) {
	m := r.Coder.Scheme().M
	if r.Width <= 6 {
		for n := 1; n <= m; n++ {
			all = append(all, Subsets(r.Width, n, 1000)...)
		}
		return all
	}
	for _, n := range []int{1, m / 2, m} {
		all = append(all, Subsets(r.Width, n, 2)...)
	}
	return all
}
