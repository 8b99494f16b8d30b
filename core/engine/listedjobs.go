package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
)

// What follows is for jobs whose objects are listed at a remote.

// Boot is the number of this start of the node.
func (n *Node) Boot() uint64 { return n.opt.Boot }

// ListSource lists a page of what the remote of a bucket has, in one request.
func (n *Node) ListSource(ctx context.Context, bucket core.Bucket, o core.RemoteListOptions) (core.RemoteListing, error) {
	return n.listRemote(ctx, &bucket, o)
}

// CopyOf is the job that wrote an object of a remote, "" if none did, by the object's
// metadata.
func CopyOf(o *core.RemoteObject) (job string) {
	job, _, _ = strings.Cut(o.Meta[originMeta], ":")
	return job
}

// CanList says whether a remote bucket can be listed, and by how many keys at a
// time at the most; 0 is not known.
func (n *Node) CanList(bucket core.Bucket) (page int, err error) {
	b, err := n.remote(&bucket)
	if err != nil {
		return 0, err
	}
	a := b.client.Abilities()
	if a.NoList {
		return 0, fmt.Errorf("bucket %s cannot be listed; name the objects with --list, --template or --list-file: %w", bucket.Name, core.ErrInvalid)
	}
	return a.PageSize, nil
}

// RowsOf returns the rows of one key of the jobs' in a slot, from its owner.
func (n *Node) RowsOf(ctx context.Context, s core.SlotID, key string) ([]core.Row, error) {
	var out []core.Row
	err := n.ask(ctx, s, func(ctx context.Context, m *core.Map) error {
		owner := m.OwnerNode(s)
		if owner == "" {
			return fmt.Errorf("slot %d has no disk: %w", s, core.ErrUnavailable)
		}
		scan := core.Scan{Bucket: core.SystemBucket, Space: core.SpaceCursor, Prefix: key}
		rep, err := n.scanNode(ctx, owner, &scanRequest{scan: scan, limit: maxScan, only: []core.SlotID{s}})
		switch {
		case err != nil:
			return err
		case len(rep.held) != 1 || rep.more:
			return fmt.Errorf("slot %d: %w", s, core.ErrNotOwner)
		}
		out = out[:0]
		for i := range rep.found {
			if rep.found[i].Key == key {
				out = append(out, rep.found[i].Row)
			}
		}
		return nil
	})
	return out, err
}

// RowsAfter returns rows of one key of the jobs', of all slots, in order of their
// Sub and only those behind after: about as many as wanted. more says that there may
// be others.
func (n *Node) RowsAfter(ctx context.Context, key, after string, want int) (rows []core.Row, more bool, err error) {
	scan := core.Scan{Bucket: core.SystemBucket, Space: core.SpaceCursor, Prefix: key, AfterKey: key, AfterSub: after, Before: key + "\x00"}
	found, more, err := n.page(ctx, scan, want, false)
	for i := range found {
		rows = append(rows, found[i].Row)
	}
	return rows, more, err
}

// PutRows writes rows of one key as one entry, if each of them has its Version;
// zero: if there is none. Otherwise it fails with core.ErrConflict. Rows in also are
// written with them, whatever there is. The values must not be changed any more.
func (n *Node) PutRows(ctx context.Context, s core.SlotID, rows []core.Row, also ...core.Row) (core.Version, error) {
	m := &mutation{slot: s}
	m.need.Domains = 1
	for i := range rows {
		m.checks = append(m.checks, check{kind: checkVersion, row: rows[i].RowKey, version: rows[i].Version})
		m.entry.Rows = append(m.entry.Rows, core.Row{RowKey: rows[i].RowKey, Value: rows[i].Value})
	}
	for i := range also {
		m.entry.Rows = append(m.entry.Rows, core.Row{RowKey: also[i].RowKey, Value: also[i].Value})
	}
	out, err := n.write(ctx, m)
	return out.version, err
}

// Why an object that was listed is not copied.
const (
	sourceRemoved  = "the source was removed since it was listed"
	sourceReplaced = "the source was replaced since it was listed"
)

// openListed opens an object that was listed, in the version that was listed. why
// says why there is none such.
func (n *Node) openListed(ctx context.Context, b *core.Bucket, key, listed string) (obj *core.Object, why string, err error) {
	remote := b.Name.Remote()
	for _, o := range []core.GetOptions{{}, {Latest: true}} {
		obj, err = n.open(ctx, b, key, o, (*core.Conditions).CheckRead)
		switch {
		case errors.Is(err, core.ErrNotFound):
			return nil, sourceRemoved, nil
		case err != nil:
			return nil, "", err
		case !remote && (listed == "" || ContentOf(&obj.Record) == listed), remote && (listed == "" || string(remoteVersion(&obj.Record)) == listed):
			return obj, "", nil
		}
		_ = obj.Body.Close()
		if !remote {
			break
		}
		// What is present may be older than what was listed.
	}
	return nil, sourceReplaced, nil
}

// PrefetchPresent is why an object is not fetched that need not be.
const PrefetchPresent = "it is present"

// Prefetch reads an object of a remote bucket, in the version that was listed, so
// that it becomes present. It returns its size.
func (n *Node) Prefetch(ctx context.Context, b core.Bucket, key, listed string) (CopyEnd, int64, string, error) {
	have, err := n.remoteRow(ctx, n.SlotOf(b.ID, key), objectName{b.ID, key}, false)
	if err != nil {
		return 0, 0, "", err
	}
	if holdsVersion(have, listed) {
		return CopySkipped, have.rec.Size, PrefetchPresent, nil
	}
	obj, why, err := n.openListed(ctx, &b, key, listed)
	if err != nil || why != "" {
		return CopySkipped, 0, why, err
	}
	size := obj.Size
	_, err = io.Copy(io.Discard, obj.Body)
	if err = errors.Join(err, obj.Body.Close()); err != nil {
		return 0, size, "", fmt.Errorf("prefetch %s/%s: %w", b.Name, key, err)
	}
	return Copied, size, "", n.awaitPresent(ctx, &b, key)
}

// holdsVersion says whether all of an object is present, in a version; "" is any.
func holdsVersion(f *remoteFound, version string) bool {
	return f.rec != nil && !f.unsettled && f.rec.Whole() && (version == "" || string(remoteVersion(f.rec)) == version)
}

// awaitPresent waits until what was read has been stored: that goes on for a moment
// behind the reader.
func (n *Node) awaitPresent(ctx context.Context, b *core.Bucket, key string) error {
	const most = 5 * time.Second
	for d := 5 * time.Millisecond; ; d *= 2 {
		f, err := n.remoteRow(ctx, n.SlotOf(b.ID, key), objectName{b.ID, key}, false)
		if err != nil || holdsVersion(f, "") {
			return err
		}
		if d > most {
			return fmt.Errorf("prefetch %s/%s: it was read, but not kept; a disk may be full: %w", b.Name, key, core.ErrNoSpace)
		}
		if err := n.clock.Wait(ctx, d); err != nil {
			return err
		}
	}
}
