package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalstore/shoal/core"
)

// What follows is for the job engine, which runs on every node beside it.

// SlotPage is a run of rows of slots that this node owns.
type SlotPage struct {
	Found []core.Found
	// Held lists the slots that the node owned throughout; only their rows
	// are in Found.
	Held []core.SlotID
	More bool
}

// ScanOwned returns up to limit rows of the slots in only.
func (n *Node) ScanOwned(ctx context.Context, scan core.Scan, limit int, only []core.SlotID) (SlotPage, error) {
	if len(only) == 0 {
		return SlotPage{}, nil
	}
	rep, err := n.scanOwned(ctx, &scanRequest{scan: scan, limit: limit, only: only})
	if err != nil {
		return SlotPage{}, err
	}
	return SlotPage{Found: rep.found, Held: rep.held, More: rep.more}, nil
}

// OwnedSlots returns the slots that this node serves now, with their terms.
func (n *Node) OwnedSlots() map[core.SlotID]core.Epoch {
	out := map[core.SlotID]core.Epoch{}
	d := n.driver
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.node.Map()
	if m == nil {
		return out
	}
	now := d.clock.Boot()
	for i := range m.Slots {
		s := core.SlotID(i)
		if m.OwnerNode(s) == d.self {
			if _, err := d.node.Serving(now, s); err == nil {
				out[s] = m.Slots[i].Term
			}
		}
	}
	return out
}

// Row reads a row from its slot's owner.
func (n *Node) Row(ctx context.Context, s core.SlotID, k core.RowKey) (core.Row, error) {
	return n.row(ctx, s, k)
}

// PutRow writes a row if its version still is the given one; zero: if there is
// none. Otherwise it fails with core.ErrConflict.
func (n *Node) PutRow(ctx context.Context, s core.SlotID, k core.RowKey, value []byte, version core.Version) (core.Version, error) {
	m := &mutation{slot: s, checks: []check{{kind: checkVersion, row: k, version: version}}}
	m.need.Domains = 1
	m.entry.Rows = []core.Row{{RowKey: k, Value: value}}
	out, err := n.write(ctx, m)
	return out.version, err
}

// SlotOf returns the slot of a key under the map in effect.
func (n *Node) SlotOf(b core.BucketID, key string) core.SlotID {
	return slotOf(n.driver.effect.Load(), b, key)
}

// Repair brings an object's shards to where they should be; with deep each is
// read and verified first. It returns the bytes of shards that it made.
func (n *Node) Repair(ctx context.Context, b core.BucketID, f *core.Found, deep bool) error {
	m := n.driver.effect.Load()
	bucket := m.Bucket(b)
	if bucket == nil {
		return nil
	}
	rec, err := core.DecodeRecord(f.Value)
	if err != nil {
		return fmt.Errorf("record of %q: %w", f.Key, err)
	}
	if need := n.heal.needs(m, bucket, f.Key, rec); !deep && !need.lacks && !need.moves {
		return nil
	}
	err = n.heal.object(ctx, m, bucket, &f.Row, rec, deep)
	if moot(err) {
		return nil
	}
	if err != nil && n.heal.forgoes(ctx, m, bucket, &f.Row, rec) {
		return nil
	}
	if errors.Is(err, errWaits) || isPlaceAgain(err) {
		err = fmt.Errorf("%w: %w", core.ErrUnavailable, err)
	}
	return err
}

// CopyTask is one object of a copy job.
type CopyTask struct {
	From, To   core.Bucket
	Key, ToKey string
	// Source is the content of the source as it was listed; see [ContentOf]. Of an
	// object of a remote bucket it is the version that the remote named; "" is
	// whatever is there.
	Source         string
	Job, Transform string
	Started        time.Time // of the job
	// NoCache has nothing of remote buckets kept in the cluster.
	NoCache bool
}

// ContentOf names the content of a record. Unlike its version it stays the same
// when the object's shards are moved.
func ContentOf(rec *core.Record) string {
	return fmt.Sprintf("%s@%d", rec.ETag, rec.Modified.UnixNano())
}

// CopyEnd is how the copy of one object ended.
type CopyEnd int

// The ends.
const (
	Copied      CopyEnd = iota // written now
	CopiedSoFar                // written by this job before
	CopySkipped                // not written, see the reason
)

// origin is what the destination's record carries.
func (t *CopyTask) origin() core.Origin {
	return core.Origin{Job: t.Job, Key: t.Key, Version: t.Source, Transform: t.Transform}
}

// CopyObject copies one object for a job, exactly once in effect: a destination
// that carries this job's tuple is done already; one that somebody else wrote
// after the job began stays, and so does one whose source is not the version
// that was listed.
func (n *Node) CopyObject(ctx context.Context, t *CopyTask) (CopyEnd, core.ObjectInfo, string, error) {
	const tries = 10
	for i := 0; ; i++ {
		end, info, why, err := n.copyOnce(ctx, t)
		if !errors.Is(err, core.ErrConflict) || i == tries {
			return end, info, why, err
		}
	}
}

func (n *Node) copyOnce(ctx context.Context, t *CopyTask) (CopyEnd, core.ObjectInfo, string, error) {
	fail := func(err error) (CopyEnd, core.ObjectInfo, string, error) { return 0, core.ObjectInfo{}, "", err }
	if t.To.Name.Remote() {
		return n.copyToRemote(ctx, t)
	}
	have, row, err := n.record(ctx, t.To.ID, t.ToKey)
	if err != nil && !errors.Is(err, core.ErrNotFound) {
		return fail(err)
	}
	if have != nil {
		switch {
		case have.Origin == t.origin():
			return CopiedSoFar, info(&t.To, t.ToKey, have, row.Version), "", nil
		case have.Modified.After(t.Started) && have.Origin.Job != t.Job:
			return CopySkipped, core.ObjectInfo{}, copyForeign, nil
		}
	}
	src, why, err := n.openSource(ctx, t)
	if err != nil {
		return fail(err)
	}
	if why != "" {
		return CopySkipped, core.ObjectInfo{}, why, nil
	}
	defer func() { _ = src.Body.Close() }()
	dst := t.To
	dst.Policy.ETag = etagKeep
	st, err := n.store(ctx, &dst, t.ToKey, src.Body, &core.PutOptions{Size: src.Length}, t.To.Policy.Inline)
	if err != nil {
		return fail(err)
	}
	describeCopy(&st.rec, &src.Record, &core.CopyOptions{})
	st.rec.Origin = t.origin()
	st.rec.Modified = n.clock.Now().UTC()
	m := n.mutation(&t.To, t.ToKey, core.NewRequestID())
	m.checks = []check{{kind: checkVersion, row: objectKey(t.To.ID, t.ToKey), version: row.Version}}
	out, err := n.writeObject(ctx, &t.To, t.ToKey, st, m)
	return Copied, out, "", err
}

// copyForeign is why a destination stays as it is.
const copyForeign = "the destination was written by somebody else since the job began"

// DiskCount is the number of local disks in use.
func (n *Node) DiskCount() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.disks)
}
