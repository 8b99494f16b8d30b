package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/shoalstore/shoal/plugins/api"
)

// spoiled is how many shards of a disk are damaged at once.
const spoiled = 5

// spoilShards damages some shards of the disk in a directory.
func spoilShards(dir string, rnd *rand.Rand, spoil func(string, *rand.Rand) error) error {
	shards, err := shardFiles(dir)
	if err != nil {
		return err
	}
	rnd.Shuffle(len(shards), func(i, j int) { shards[i], shards[j] = shards[j], shards[i] })
	for _, s := range shards[:min(spoiled, len(shards))] {
		// A shard may have been removed since.
		if err := spoil(s, rnd); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// shardFiles are the shards of the disk in a directory, but for those that are
// being written.
func shardFiles(dir string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(filepath.Join(dir, "data"), func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case e.IsDir() && e.Name() == "tmp":
			return fs.SkipDir
		case e.Type().IsRegular():
			out = append(out, path)
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

func flipBit(path string, rnd *rand.Rand) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	at := rnd.Int64N(info.Size())
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 1 << rnd.IntN(8)
	_, err = f.WriteAt(b[:], at)
	return err
}

func truncate(path string, rnd *rand.Rand) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() == 0 {
		return err
	}
	return os.Truncate(path, rnd.Int64N(info.Size()))
}

func removeFile(path string, _ *rand.Rand) error { return os.Remove(path) }

// hiddenDisk is a disk whose directory for data is not there for a while, as
// after a mount that was lost.
func (h *harness) hiddenDisk(disk api.Disk) *blow {
	move := func(ctx context.Context, from, to string) error {
		path, err := h.diskPath(ctx, disk)
		if err != nil {
			return err
		}
		return os.Rename(filepath.Join(path, from), filepath.Join(path, to))
	}
	return &blow{
		what: "data of " + disk.ID + " out of sight", node: disk.Node,
		strike: func(ctx context.Context) error { return move(ctx, "data", "data.away") },
		restore: func(ctx context.Context) error {
			if err := move(ctx, "data.away", "data"); err != nil {
				return err
			}
			err := h.diskAction(disk, api.AttachDisk)(ctx)
			if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.CodeRefused {
				h.say("%s is still in use: %s", disk.ID, e.Message) // nobody has missed it
				return nil
			}
			if err != nil {
				return fmt.Errorf("attach %s: %w", disk.ID, err)
			}
			return nil
		},
	}
}
