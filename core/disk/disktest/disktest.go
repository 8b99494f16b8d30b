// Package disktest is the conformance suite of Shoal's disks: what holds for
// core/disk must hold for whatever takes its place. A disk's own test is short:
//
//	func TestConformance(t *testing.T) {
//		disktest.Run(t, disktest.Target{Format: format, Open: open})
//	}
//
// The suite compares a disk with a naive model in memory, over random histories
// and over one history in which each single operation on the file system fails
// once, or is the last one before power is lost.
package disktest

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// Disk is what the suite tests.
type Disk interface {
	core.RowStore
	core.Store
	// Shards lists committed shards in the order of their ids.
	Shards(ctx context.Context, after core.ShardID) iter.Seq2[core.ShardInfo, error]
	Close() error
}

// Target makes disks. It should configure them so that little data exercises
// all of them: small buffers, direct writes from a few hundred KiB.
type Target struct {
	// Format makes dir a disk.
	Format func(ctx context.Context, fsys vfs.FS, dir string) error
	// Open opens it.
	Open func(ctx context.Context, fsys vfs.FS, dir string) (Disk, error)
	// LogSyncs says of a file name whether a sync of that file is what makes
	// an Apply durable; TableSyncs, whether rows move there later.
	LogSyncs, TableSyncs func(name string) bool
	// ShardFile says of a name whether it is a shard's, or a directory that
	// holds some.
	ShardFile func(name string) bool
}

// dir is where the suite's disks are in a file system in memory.
const dir = "/disk"

// Run runs the whole suite.
func Run(t *testing.T, target Target) {
	t.Run("rows", func(t *testing.T) { each(t, target, rowTests()) })
	t.Run("shards", func(t *testing.T) { each(t, target, shardTests()) })
	t.Run("model", func(t *testing.T) { runModel(t, target) })
	t.Run("concurrent", func(t *testing.T) { runConcurrent(t, target) })
	t.Run("space", func(t *testing.T) { runSpace(t, target) })
	t.Run("faults", func(t *testing.T) { runFaults(t, target) })
	t.Run("crashes", func(t *testing.T) { runCrashes(t, target) })
	t.Run("sabotage", func(t *testing.T) { runSabotage(t, target) })
}

// namedTest is a test that wants a disk.
type namedTest struct {
	name string
	run  func(t *testing.T, b *bench)
	// real tests run on the real file system too, which is slow.
	real bool
}

// bench is a disk under test and the means to open it again.
type bench struct {
	Disk
	t      *testing.T
	target Target
	fsys   vfs.FS
	dir    string
}

func newBench(t *testing.T, target Target, fsys vfs.FS, dir string) *bench {
	t.Helper()
	b := &bench{t: t, target: target, fsys: fsys, dir: dir}
	must(t, target.Format(t.Context(), fsys, dir))
	b.open()
	t.Cleanup(func() {
		if b.Disk != nil {
			if err := b.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	return b
}

func (b *bench) open() {
	b.t.Helper()
	d, err := b.target.Open(b.t.Context(), b.fsys, b.dir)
	must(b.t, err)
	b.Disk = d
}

// reopen closes the disk and opens it again.
func (b *bench) reopen() {
	b.t.Helper()
	must(b.t, b.Close())
	b.Disk = nil
	b.open()
}

// each runs tests on the file system in memory, and some on the real one.
func each(t *testing.T, target Target, tests []namedTest) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, newBench(t, target, vfs.NewMem(vfs.MemOptions{}), dir))
		})
		if test.real {
			t.Run(test.name+" on the real file system", func(t *testing.T) {
				test.run(t, newBench(t, target, vfs.OS(), t.TempDir()))
			})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// ver is a version of term 1, boot 1.
func ver(seq uint64) core.Version { return core.Version{Term: 1, Boot: 1, Seq: seq} }

// forever is above all versions.
func forever() core.Version { return core.Version{Term: 1 << 60, Boot: 1 << 60, Seq: 1 << 60} }

func key(k string) core.RowKey { return core.RowKey{Bucket: 1, Key: k} }

func put(k, value string) core.Row { return core.Row{RowKey: key(k), Value: []byte(value)} }
func del(k string) core.Row        { return core.Row{RowKey: key(k), Deleted: true} }

func entry(v core.Version, rows ...core.Row) core.Entry {
	for i := range rows {
		rows[i].Version = v
	}
	return core.Entry{Version: v, Time: int64(v.Seq) * 1000, Rows: rows}
}
