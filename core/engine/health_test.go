package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/vfs"
)

// faulty is a file system whose operations a test can make fail or hang.
type faulty struct {
	on   atomic.Bool
	hook func(vfs.Op) error
}

// startFaulty starts three nodes of two disks, of which n2/d1 is faulty.
func startFaulty(t *testing.T, f *faulty) *testCluster {
	t.Helper()
	made := 0
	return startClusterOf(t, 3, 2, hooks{
		node: func(o *engine.Options) { o.Grace, o.Stall = time.Second, time.Second },
		disk: func(o *disk.Options) {
			if made++; made == 3 {
				o.FS = vfs.WithHook(vfs.OS(), func(op vfs.Op) error {
					if !f.on.Load() {
						return nil
					}
					return f.hook(op)
				})
			}
		},
	})
}

// awaitFailed waits until the faulty disk, and it alone, has failed for a reason
// that says so, and all that it held is redundant again.
func (tc *testCluster) awaitFailed(t *testing.T, why string) {
	t.Helper()
	waitFor(t, "the disk to fail", func() error {
		m := tc.nodes[0].Map()
		for i := range m.Disks {
			d := &m.Disks[i]
			switch {
			case d.Node != "n2" || d.Name != "d1":
				if d.State != core.DiskOK {
					t.Fatalf("disk %s/%s is %s: %s", d.Node, d.Name, d.State, d.Reason)
				}
			case d.State != core.DiskFailed:
				return fmt.Errorf("it is %s", d.State)
			case !strings.Contains(d.Reason, why):
				t.Fatalf("the reason is %q, want it to say %q", d.Reason, why)
			}
		}
		return nil
	})
	waitFor(t, "redundancy to return", func() error {
		for _, n := range tc.nodes {
			if s := n.Status(); s.Under > 0 || s.Pending {
				return fmt.Errorf("%s: %d objects lack it", s.Node, s.Under)
			}
		}
		m := tc.nodes[0].Map()
		for i := range m.Slots {
			if len(m.Slots[i].Insync) < m.Replicas {
				return fmt.Errorf("slot %d has %d members", i, len(m.Slots[i].Insync))
			}
		}
		return nil
	})
}

func content(key string) []byte { return bytes.Repeat([]byte(key+"."), 3000)[:9000] }

// readAll reads objects and compares them.
func readAll(t *testing.T, o core.Objects, b core.Bucket, objects int) {
	t.Helper()
	for i := range objects {
		key := fmt.Sprint("key", i)
		waitFor(t, "the read of "+key, func() error {
			obj, err := o.Get(t.Context(), b, key, core.GetOptions{})
			if err != nil {
				return err
			}
			defer func() { _ = obj.Body.Close() }()
			got, err := io.ReadAll(obj.Body)
			if err == nil && !bytes.Equal(got, content(key)) {
				t.Fatalf("%s: got %d bytes that were not written", key, len(got))
			}
			return err
		})
	}
}

func writeAll(t *testing.T, o core.Objects, b core.Bucket, objects int) {
	t.Helper()
	for i := range objects {
		key := fmt.Sprint("key", i)
		waitFor(t, "the write of "+key, func() error {
			_, err := o.Put(t.Context(), b, key, bytes.NewReader(content(key)), core.PutOptions{Size: int64(len(content(key)))})
			return err
		})
	}
}

// TestDiskReadErrors: a disk that fails every third read is taken out of use;
// clients see nothing of it, and the node's other disk goes on.
func TestDiskReadErrors(t *testing.T) {
	var reads atomic.Int64
	f := &faulty{hook: func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && strings.Contains(op.Name, string(filepath.Separator)+"data"+string(filepath.Separator)) && reads.Add(1)%3 == 0 {
			return syscall.EIO
		}
		return nil
	}}
	tc := startFaulty(t, f)
	o := tc.nodes[0].Objects()
	b := sharded(t, o, core.Mirror(2))
	const objects = 60
	writeAll(t, o, b, objects)
	f.on.Store(true)
	waitFor(t, "the disk to be found out", func() error {
		readAll(t, o, b, objects)
		for _, d := range tc.nodes[0].Map().Disks {
			if d.State == core.DiskFailed {
				return nil
			}
		}
		return errors.New("all disks are ok")
	})
	tc.awaitFailed(t, "reads failed within 1m0s, the last one with: ")
	readAll(t, o, b, objects)
}

// TestDiskWriteErrors: a disk that fails a write is out of use at once.
func TestDiskWriteErrors(t *testing.T) {
	f := &faulty{hook: func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			return syscall.EIO
		}
		return nil
	}}
	tc := startFaulty(t, f)
	o := tc.nodes[0].Objects()
	b := sharded(t, o, core.Mirror(2))
	const objects = 40
	writeAll(t, o, b, objects)
	f.on.Store(true)
	writeAll(t, o, b, objects)
	tc.awaitFailed(t, "input/output error")
	readAll(t, o, b, objects)
}

// TestDiskHangs: writes go on when fdatasync of one disk does not return.
func TestDiskHangs(t *testing.T) {
	release := make(chan struct{})
	f := &faulty{hook: func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			<-release
		}
		return nil
	}}
	tc := startFaulty(t, f)
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	o := tc.nodes[0].Objects()
	b := sharded(t, o, core.Mirror(2))
	const objects = 40
	writeAll(t, o, b, objects)
	f.on.Store(true)
	began := time.Now()
	writeAll(t, o, b, objects)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("writes took %v", took)
	}
	tc.awaitFailed(t, "an operation has not ended for 1s")
	readAll(t, o, b, objects)
}
