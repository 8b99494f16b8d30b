package disk_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/disk"
	"github.com/shoalstore/shoal/core/disk/disktest"
	"github.com/shoalstore/shoal/core/vfs"
)

// realClock is the machine's time.
type realClock struct{ start time.Time }

func (realClock) Now() time.Time       { return time.Now() }
func (c realClock) Boot() core.Instant { return core.Instant(time.Since(c.start)) }
func (realClock) Wait(ctx context.Context, _ time.Duration) error {
	return ctx.Err()
}

func clock() core.Clock { return realClock{time.Now()} }

const (
	cluster = "c1"
	node    = core.NodeID("n1")
)

// small makes little data exercise everything.
func small(fsys vfs.FS, dir string) disk.Options {
	return disk.Options{
		Dir: dir, FS: fsys, Clock: clock(), Cluster: cluster, Node: node,
		MemTableSize: 64 << 10, DirectFrom: 200_000, Reserve: 4 << 20,
		KeepRows: 20_000,
	}
}

func target() disktest.Target {
	return disktest.Target{
		Format: func(ctx context.Context, fsys vfs.FS, dir string) error {
			_, err := disk.Format(ctx, disk.FormatOptions{Options: small(fsys, dir)})
			return err
		},
		Open: func(ctx context.Context, fsys vfs.FS, dir string) (disktest.Disk, error) {
			d, err := disk.Open(ctx, small(fsys, dir))
			if err != nil {
				return nil, err
			}
			return looking{d}, nil
		},
		LogSyncs:   func(name string) bool { return strings.HasSuffix(name, ".log") },
		TableSyncs: func(name string) bool { return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob") },
		ShardFile:  func(name string) bool { return strings.Contains(filepath.ToSlash(name), "/data/") },
	}
}

// looking is a disk that compares the rows it keeps in memory with those it has
// after each change of them.
type looking struct{ *disk.Disk }

func (l looking) look(err error) error {
	if err == nil {
		_, err = l.CheckRows()
	}
	return err
}

func (l looking) Apply(ctx context.Context, batches []core.SlotBatch) error {
	return l.look(l.Disk.Apply(ctx, batches))
}

func (l looking) Reclaim(ctx context.Context, limit int) (bool, error) {
	more, err := l.Disk.Reclaim(ctx, limit)
	return more, l.look(err)
}

func TestConformance(t *testing.T) { disktest.Run(t, target()) }
