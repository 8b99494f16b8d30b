package disk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/shoalstore/shoal/core"
)

const (
	metaNew  = "meta.new"
	metaLost = "meta.lost"
)

// FormatOptions say how a directory becomes a disk.
type FormatOptions struct {
	// Options name the directory, file system, clock and log. Cluster and
	// Node are those of the new disk and must be given.
	Options
	// UUID is the new disk's name; empty asks for a random one.
	UUID string
	// Force formats a directory that is not empty, or is a disk already.
	// What belongs to a disk is removed, other files stay.
	Force bool
	// Renew formats a directory that is a disk of the same cluster, or of which
	// nobody can tell any more which disk it is, but none that holds anything
	// else.
	Renew bool
}

// Format makes a directory a disk and returns which one. It refuses one that is
// a disk ([core.ErrExists]), that is not empty ([core.ErrNotEmpty]; lost+found
// does not count), or that is in use ([core.ErrLocked]). If it is interrupted
// the directory is no disk, and Format can be called again.
func Format(ctx context.Context, o FormatOptions) (Identity, error) {
	if o.Cluster == "" || o.Node == "" {
		return Identity{}, fmt.Errorf("format disk: cluster and node must be given: %w", core.ErrInvalid)
	}
	if err := o.Node.Validate(); err != nil {
		return Identity{}, fmt.Errorf("format disk: %w", err)
	}
	d, err := newDisk(o.Options)
	if err != nil {
		return Identity{}, err
	}
	d.id = Identity{
		Format: FormatVersion, Generation: 1, Cluster: o.Cluster, Node: o.Node, UUID: o.UUID, Created: o.Clock.Now().UTC(),
	}
	if d.id.UUID == "" {
		d.id.UUID = newUUID()
	}
	if err := errors.Join(d.format(ctx, &o), d.release()); err != nil {
		return Identity{}, fmt.Errorf("format %s: %w", d.dir, err)
	}
	return d.id, nil
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (d *Disk) format(ctx context.Context, o *FormatOptions) error {
	if err := d.fs.MkdirAll(d.dir); err != nil {
		return err
	}
	if err := d.fs.SyncDir(filepath.Dir(d.dir)); err != nil {
		return err
	}
	if !o.Force {
		if err := d.mayFormat(o.Renew); err != nil {
			return err
		}
	}
	if err := d.takeLock(); err != nil {
		return err
	}
	if err := d.clear(ctx); err != nil {
		return err
	}
	for i := range dirCount {
		if err := d.fs.MkdirAll(d.path(dataName, dirName(i))); err != nil {
			return err
		}
	}
	if err := d.fs.MkdirAll(d.path(dataName, tmpName)); err != nil {
		return err
	}
	if err := d.fs.SyncDir(d.path(dataName)); err != nil {
		return err
	}
	if err := d.createRows(metaName); err != nil {
		return err
	}
	if err := writeIdentity(d.fs, d.dir, &d.id); err != nil {
		return err
	}
	if err := d.fs.Remove(d.path(formattingName)); err != nil {
		return err
	}
	return d.fs.SyncDir(d.dir)
}

// parts are the names of what a disk has in its directory.
func parts() []string {
	return []string{identityName, identityBackup, identityName + ".tmp", identityBackup + ".tmp", sealName, metaName, metaNew, metaLost, dataName}
}

// mayFormat refuses a directory with something in it. With renew a disk of the
// same cluster is nothing.
func (d *Disk) mayFormat(renew bool) error {
	names, err := d.fs.List(d.dir)
	if err != nil {
		return err
	}
	interrupted, own, foreign := false, "", ""
	for _, n := range names {
		switch {
		case n == formattingName:
			interrupted = true
		case n == "lost+found" || n == lockName:
		case slices.Contains(parts(), n):
			own = n
		default:
			foreign = n
		}
	}
	if interrupted || foreign == "" && own == "" {
		return nil
	}
	id, err := ReadIdentity(d.fs, d.dir)
	if renew && foreign == "" && (err == nil && id.Cluster == d.id.Cluster || errors.Is(err, ErrIdentity)) {
		return nil
	}
	if foreign == "" {
		foreign = own
	}
	switch {
	case err == nil && renew && id.Cluster == d.id.Cluster:
		return fmt.Errorf("%q is in it, which is no part of a disk: %w", foreign, core.ErrNotEmpty)
	case err == nil:
		return fmt.Errorf("it is disk %s of node %s in cluster %s: %w", id.UUID, id.Node, id.Cluster, core.ErrExists)
	case errors.Is(err, core.ErrUnformatted):
		return fmt.Errorf("%q is in it: %w", foreign, core.ErrNotEmpty)
	}
	return fmt.Errorf("%w: %w", core.ErrExists, err)
}

// clear removes what an earlier disk left, first of all what makes it one.
func (d *Disk) clear(ctx context.Context) error {
	if f, err := d.fs.Create(d.path(formattingName)); err == nil {
		if err := f.Close(); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.fs.SyncDir(d.dir); err != nil {
		return err
	}
	for _, n := range parts() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.fs.RemoveAll(d.path(n)); err != nil {
			return err
		}
		if err := d.fs.SyncDir(d.dir); err != nil {
			return err
		}
	}
	return nil
}

// createRows makes an empty store for the rows and gives it its name when it is
// durable.
func (d *Disk) createRows(name string) error {
	for _, n := range []string{metaNew, sealName} {
		if err := d.fs.RemoveAll(d.path(n)); err != nil {
			return err
		}
	}
	if err := d.fs.MkdirAll(d.path(metaNew)); err != nil {
		return err
	}
	if err := d.fillRows(); err != nil {
		return err
	}
	if err := d.fs.SyncDir(d.dir); err != nil {
		return err
	}
	if err := d.fs.Rename(d.path(metaNew), d.path(name)); err != nil {
		return err
	}
	return d.fs.SyncDir(d.dir)
}

// fillRows opens the new store, writes what every store has, and closes it.
func (d *Disk) fillRows() (err error) {
	rows, err := newDisk(d.opt)
	if err != nil {
		return err
	}
	rows.id, rows.creating, rows.metaDir = d.id, true, d.path(metaNew)
	defer func() { err = errors.Join(err, rows.release()) }()
	if err := rows.openRows(); err != nil {
		return err
	}
	for name, v := range map[string][]byte{
		aboutUUID:   sealValue(aboutKey(aboutUUID), append(make([]byte, sumSize), d.id.UUID...)),
		aboutCounts: encodeCounts(aboutKey(aboutCounts), 0, 0, 0),
	} {
		if err := rows.db.Set(aboutKey(name), v, pebble.Sync); err != nil {
			return err
		}
	}
	if err := rows.db.Flush(); err != nil {
		return err
	}
	return rows.fail.err()
}

// ResetMeta gives a disk whose rows are lost or damaged a new, empty store for
// them, and a new UUID: for what it has is no longer what the disk of the old
// one had. Shards stay; [Disk.Shards] tells which they are. What was there of
// the old rows is kept as meta.lost. The disk must not be open. If ResetMeta is
// interrupted, call it again.
func ResetMeta(_ context.Context, o Options, uuid string) (Identity, error) {
	d, err := newDisk(o)
	if err != nil {
		return Identity{}, err
	}
	if uuid == "" {
		uuid = newUUID()
	}
	if err := errors.Join(d.resetMeta(uuid), d.release()); err != nil {
		return Identity{}, fmt.Errorf("rebuild disk %s: %w", d.dir, err)
	}
	return d.id, nil
}

func (d *Disk) resetMeta(uuid string) error {
	if err := d.identify(); err != nil {
		return err
	}
	if err := d.takeLock(); err != nil {
		return err
	}
	if err := d.identify(); err != nil {
		return err
	}
	d.id.UUID = uuid
	d.id.Generation++
	if _, err := d.fs.Stat(d.path(metaName)); err == nil {
		if err := d.fs.RemoveAll(d.path(metaLost)); err != nil {
			return err
		}
		if err := d.fs.Rename(d.path(metaName), d.path(metaLost)); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Until the new store has its name Open says that the rows are missing.
	if err := writeIdentity(d.fs, d.dir, &d.id); err != nil {
		return err
	}
	return d.createRows(metaName)
}
