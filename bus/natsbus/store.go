package natsbus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/shoalstore/shoal/core"
)

// A generation's store directory holds NATS's files below "jetstream" and one
// of ours, which says whose store it is and whether it was closed.
const (
	labelFile = "shoal-bus.json"
	// natsFiles is what NATS makes at the first start of a server that is one
	// of several: the log of the group that places streams. A standalone
	// server makes nothing before the first stream.
	natsFiles = "jetstream/$SYS/_js_"
)

// label is the content of labelFile.
type label struct {
	Format     int    `json:"format"`
	Cluster    string `json:"cluster"`
	Generation uint64 `json:"generation"`
	Node       string `json:"node"`
	Closed     bool   `json:"closed"`
	// Started says that NATS has files there.
	Started bool `json:"started"`
	// Members are the coordinators at the last start.
	Members []Member `json:"members"`
}

// enterStore checks that the directory is this server's store, or makes it,
// and writes down that it is closed before a closed server starts. A store
// that was lost is refused: an empty coordinator that votes as if it had never
// been another one would take part in losing acknowledged writes.
func enterStore(dir string, o ServerOptions) error {
	l, err := readLabel(dir)
	want := label{Format: 1, Cluster: o.Cluster, Generation: o.Generation, Node: o.Name, Closed: o.Closed, Members: o.Members}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if has, err := exists(filepath.Join(dir, "jetstream")); err != nil || has {
			return errors.Join(err, fmt.Errorf("bus store %s has lost its %s: let another coordinator take its place: %w", dir, labelFile, core.ErrCorrupt))
		}
		if o.Closed {
			return fmt.Errorf("bus store %s: there is nothing to close: %w", dir, core.ErrNotFound)
		}
		return writeLabel(dir, want)
	case err != nil:
		return err
	case l.Cluster != want.Cluster || l.Generation != want.Generation || l.Node != want.Node:
		return fmt.Errorf("bus store %s belongs to node %s, cluster %s, generation %d: %w", dir, l.Node, l.Cluster, l.Generation, core.ErrInvalid)
	case l.Closed && !o.Closed:
		return fmt.Errorf("bus store %s: generation %d is closed: %w", dir, o.Generation, core.ErrConflict)
	}
	if l.Started {
		if has, err := exists(filepath.Join(dir, natsFiles)); err != nil || !has {
			return errors.Join(err, fmt.Errorf("bus store %s has lost its content: let another coordinator take its place: %w", dir, core.ErrCorrupt))
		}
	}
	if l.Closed != o.Closed || !slices.Equal(l.Members, o.Members) {
		l.Closed, l.Members = o.Closed, o.Members
		return writeLabel(dir, l)
	}
	return nil
}

// readMembers returns the coordinators that the store's server last ran with.
func readMembers(dir string) ([]Member, error) {
	l, err := readLabel(dir)
	return l.Members, err
}

// markStarted writes down that NATS has made its files.
func markStarted(dir string) error {
	l, err := readLabel(dir)
	if err != nil || l.Started {
		return err
	}
	if l.Started, err = exists(filepath.Join(dir, natsFiles)); err != nil || !l.Started {
		return err
	}
	return writeLabel(dir, l)
}

func readLabel(dir string) (label, error) {
	b, err := os.ReadFile(filepath.Join(dir, labelFile))
	if err != nil {
		return label{}, fmt.Errorf("bus store: %w", err)
	}
	var l label
	if err := json.Unmarshal(b, &l); err != nil || l.Format != 1 {
		return label{}, fmt.Errorf("bus store %s: %s is damaged or of another version: %w", dir, labelFile, core.ErrCorrupt)
	}
	return l, nil
}

func writeLabel(dir string, l label) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("bus store %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("bus store: %w", err)
	}
	return writeFile(filepath.Join(dir, labelFile), append(b, '\n'))
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("bus store: %w", err)
	}
	return true, nil
}

// writeFile replaces a file durably: whoever finds it later finds all of it.
func writeFile(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	defer func() {
		if err != nil {
			err = fmt.Errorf("bus store: %w", err)
		}
	}()
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
