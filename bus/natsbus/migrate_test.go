package natsbus

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// TestClosedMajority tells one coordinator of three of the next generation,
// and a while later the second. As long as two are open they go on, and the
// closed one must not take what it has for all there is.
func TestClosedMajority(t *testing.T) {
	t.Parallel()
	b := newTestBus(t, 3)
	nodes := map[string]*node{}
	for _, m := range b.members {
		nodes[m.Name] = newNode(t, b, m.Name)
		nodes[m.Name].coordinator.Follow(Target{Generation: 1, Members: b.members})
	}
	c, err := Connect(ClientOptions{
		URLs: b.urls()[1:], Generation: 1, Cluster: b.cluster, Name: "writer", Logger: testLog(t, "writer"),
		Credentials: Credentials{User: testUser, Password: testPassword},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx := within(t, 2*time.Minute)
	if err := c.Import(ctx, bus.Snapshot{}, 3); err != nil {
		t.Fatal(err)
	}
	rev, err := c.Map().Create(ctx, []byte("0"))
	if err != nil {
		t.Fatal(err)
	}
	next := Target{Generation: 2, Members: b.members}
	nodes["n1"].coordinator.Follow(next)
	value, began := 0, time.Now()
	for time.Since(began) < 10*time.Second { // longer than an election takes
		if rev, err = c.Map().CompareAndSet(ctx, []byte(strconv.Itoa(value+1)), rev); err != nil {
			t.Fatalf("write while two of three are open: %v", err)
		}
		value++
		_ = wallClock{}.Wait(ctx, 20*time.Millisecond)
	}
	if _, err := nodes["n1"].coordinator.snapshot(1); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("one closed coordinator of three made a snapshot (%v)", err)
	}
	nodes["n2"].coordinator.Follow(next)
	n1 := nodes["n1"].client
	waitReady(t, n1, 60*time.Second)
	v, _, err := n1.Map().Load(ctx)
	if err != nil || string(v) != strconv.Itoa(value) {
		t.Errorf("the next generation holds %q, %v, want %d, the last value acknowledged", v, err, value)
	}
	if got, err := c.Map().CompareAndSet(within(t, time.Second), []byte("lost"), rev); err == nil {
		t.Errorf("the former generation still acknowledges: revision %d", got)
	}
	nodes["n3"].coordinator.Follow(next)
	eventually(t, 60*time.Second, "the third to join", func() error {
		st, err := n1.Status(ctx)
		if err == nil && len(st.Replicas) < 3 {
			err = fmt.Errorf("%+v", st)
		}
		return err
	})
	// A revision of the former generation fits nowhere.
	if err := c.Use(2, b.urls()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Map().CompareAndSet(ctx, []byte("x"), rev); !errors.Is(err, core.ErrConflict) {
		t.Errorf("write at a revision of the former generation: got %v, want %v", err, core.ErrConflict)
	}
}

// TestImport imports twice, at the same time and late, and from another
// snapshot.
func TestImport(t *testing.T) {
	t.Parallel()
	b := newTestBus(t, 1)
	b.start()
	ctx := within(t, 60*time.Second)
	snap := bus.Snapshot{Generation: 7, Buckets: []bus.BucketSnapshot{
		{Name: "map", Entries: []bus.KeyValue{{Key: "map", Value: []byte("m")}}},
		{Name: "jobs", Entries: []bus.KeyValue{{Key: "spec.a", Value: []byte("a")}, {Key: "spec.b", Value: []byte("b")}, {Key: "spec.c", Value: []byte("c")}}},
	}}
	sum, err := snap.Sum()
	if err != nil {
		t.Fatal(err)
	}
	c := b.client("c")
	jobs := c.jobsBucket
	s, err := jobs.make(ctx, ctx, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	// A slow import has written its marker and one entry.
	slow := marker{State: stateImporting, Generation: 1, Snapshot: sum, By: "slow"}
	first := func(m marker, expect uint64) uint64 {
		t.Helper()
		seq, err := jobs.write(ctx, s, write{key: markerKey, value: fmt.Appendf(nil, `{"state":%q,"generation":1,"snapshot":%q,"by":%q}`, m.State, m.Snapshot, m.By), expect: expect})
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	seq := first(slow, 0)
	put := func(e bus.KeyValue) error {
		_, err := jobs.write(ctx, s, write{key: e.Key, value: e.Value, expect: seq, expectOf: markerKey})
		return err
	}
	if err := put(snap.Bucket("jobs")[0]); err != nil {
		t.Fatal(err)
	}
	// Until it is ready nobody uses it.
	if _, err := c.Jobs().List(within(t, 500*time.Millisecond), ""); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("list during an import: got %v, want %v", err, core.ErrUnavailable)
	}
	// Two others take over.
	errs := make(chan error, 2)
	for _, name := range []string{"i1", "i2"} {
		other := b.client(name)
		go func() { errs <- other.Import(ctx, snap, 1) }()
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Errorf("import: %v", err)
		}
	}
	got, err := c.Jobs().List(ctx, "")
	if err != nil || len(got) != 3 {
		t.Fatalf("list: got %v, %v, want three entries", got, err)
	}
	// The cluster goes on: one job changes, one goes. The slow import must not
	// bring either back, nor a whole new one.
	for _, e := range got {
		switch e.Key {
		case "spec.b":
			if _, err := c.Jobs().Update(ctx, e.Key, []byte("changed"), e.Revision); err != nil {
				t.Fatal(err)
			}
		case "spec.c":
			if err := c.Jobs().Delete(ctx, e.Key, e.Revision); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, e := range snap.Bucket("jobs") {
		if err := put(e); !errors.Is(err, core.ErrConflict) {
			t.Errorf("the slow import goes on with %s: got %v, want %v", e.Key, err, core.ErrConflict)
		}
	}
	if err := b.client("late").Import(ctx, snap, 1); err != nil {
		t.Errorf("late import: %v", err)
	}
	if e, err := c.Jobs().Get(ctx, "spec.b"); err != nil || string(e.Value) != "changed" {
		t.Errorf("spec.b: got %q, %v, want changed", e.Value, err)
	}
	if _, err := c.Jobs().Get(ctx, "spec.c"); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("spec.c: got %v, want %v", err, core.ErrNotFound)
	}
	other := snap
	other.Generation = 8
	if err := b.client("other").Import(ctx, other, 1); !errors.Is(err, core.ErrConflict) {
		t.Errorf("import of another snapshot: got %v, want %v", err, core.ErrConflict)
	}
	// And out again.
	out, err := c.Export(ctx)
	if err != nil || len(out.Bucket("jobs")) != 2 || len(out.Bucket("map")) != 1 || out.Generation != 1 {
		t.Errorf("export: got %+v, %v, want two jobs and a map of generation 1", out, err)
	}
}

// TestFetchSnapshot gives a snapshot of several chunks from node to node.
func TestFetchSnapshot(t *testing.T) {
	t.Parallel()
	b := newTestBus(t, 1)
	b.start()
	has, wants := newNode(t, b, "n1"), newNode(t, &testBus{t: t, dirs: map[string]string{"n2": t.TempDir()}, members: b.members, cluster: b.cluster, gen: 1}, "n2")
	if err := wants.client.Use(1, b.urls()); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 30*time.Second)
	for _, n := range []*node{has, wants} {
		if err := n.client.WaitConnected(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := wants.coordinator.fetchSnapshot(ctx, 4); err == nil {
		t.Error("got a snapshot that nobody has")
	}
	value := make([]byte, 3<<20)
	_, _ = rand.Read(value)
	snap := bus.Snapshot{Generation: 4, Buckets: []bus.BucketSnapshot{{Name: "map", Entries: []bus.KeyValue{{Key: "map", Value: value}}}}}
	if err := WriteSnapshot(has.coordinator.opts.Server.Dir, snap); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the snapshot", func() error { return wants.coordinator.fetchSnapshot(ctx, 4) })
	got, err := wants.coordinator.snapshot(4)
	if err != nil || !bytes.Equal(got.Bucket("map")[0].Value, value) {
		t.Errorf("the snapshot differs (%v)", err)
	}
}
