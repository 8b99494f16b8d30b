package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/shoalstore/shoal/core"
)

// The sweep finds shards that no record names: of writes that broke off, of
// deletions that did not arrive. Each node goes over its own disks and asks the
// owners of the keys that the shards say they belong to. Only an owner's word
// deletes a shard, and from then on the owner refuses records that name it.
const (
	sweepEvery = 20 * time.Minute
	// sweepAge is how old a shard must be to be asked for. No write names a
	// shard later than commitWithin after it was stored.
	sweepAge     = time.Hour
	commitWithin = 30 * time.Minute
	sweepBatch   = 500
	// answersKept is how long answers to requests are remembered; nobody
	// repeats a request after half of it.
	answersKept = 10 * time.Minute
)

// shardLister is what a disk must be able to do to be swept.
type shardLister interface {
	Shards(ctx context.Context, after core.ShardID) iter.Seq2[core.ShardInfo, error]
}

// swept asks whether a shard on a disk is named by a record.
type swept struct {
	Disk   core.DiskID   `json:"disk"`
	Bucket core.BucketID `json:"bucket"`
	Key    []byte        `json:"key"`
	Shard  string        `json:"shard"`
}

// sweep runs the sweep and forgets old answers, until ctx ends.
func (n *Node) sweep(ctx context.Context) {
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	next := n.clock.Boot().Add(sweepEvery)
	for {
		select {
		case <-ctx.Done():
			return
		case <-minute.C:
		}
		before := n.clock.Now().Add(-answersKept).UnixMilli()
		for id, d := range n.localDisks() {
			if err := d.DropAnswers(ctx, before); err != nil && ctx.Err() == nil {
				n.log.Warn("old answers cannot be dropped", "disk", id, "err", err)
			}
		}
		n.garbage.forget()
		if n.clock.Boot() < next {
			continue
		}
		next = n.clock.Boot().Add(sweepEvery)
		for id, d := range n.localDisks() {
			if err := n.sweepDisk(ctx, id, d, sweepAge); err != nil && ctx.Err() == nil {
				n.log.Warn("sweep of a disk broke off", "disk", id, "err", err)
			}
		}
	}
}

// sweepDisk asks for every shard of the disk that is older than age, and deletes
// those that their owners disown.
func (n *Node) sweepDisk(ctx context.Context, id core.DiskID, d Disk, age time.Duration) error {
	l, ok := d.(shardLister)
	if !ok {
		return nil
	}
	batch := map[core.SlotID][]swept{}
	count := 0
	for s, err := range l.Shards(ctx, core.ShardID{}) {
		if err != nil {
			return err
		}
		if time.Duration(s.Age)*time.Second < age {
			continue
		}
		slot := n.SlotOf(s.Bucket, s.Key)
		batch[slot] = append(batch[slot], swept{id, s.Bucket, []byte(s.Key), s.ID.String()})
		if count++; count == sweepBatch {
			if err := n.sweepBatch(ctx, d, batch); err != nil {
				return err
			}
			batch, count = map[core.SlotID][]swept{}, 0
		}
	}
	return n.sweepBatch(ctx, d, batch)
}

func (n *Node) sweepBatch(ctx context.Context, d Disk, batch map[core.SlotID][]swept) error {
	for s, list := range batch {
		req, err := json.Marshal(list)
		if err != nil {
			return fmt.Errorf("encode sweep: %w", err)
		}
		resp, err := n.call(ctx, s, methodSweep, req)
		if err != nil {
			return err
		}
		var unnamed []string
		if err := json.Unmarshal(resp, &unnamed); err != nil {
			return fmt.Errorf("answer to a sweep: %w: %w", core.ErrInvalid, err)
		}
		for _, name := range unnamed {
			id, err := core.ParseShardID(name)
			if err == nil {
				err = d.Delete(ctx, id)
			}
			if err != nil {
				return err
			}
			n.log.Info("shard that no object names is deleted", "shard", name)
		}
	}
	return nil
}

// serveSweep says which shards no record names, and bars them.
func (n *Node) serveSweep(ctx context.Context, req []byte) ([]byte, error) {
	var list []swept
	if err := json.Unmarshal(req, &list); err != nil {
		return nil, fmt.Errorf("sweep: %w: %w", core.ErrInvalid, err)
	}
	unnamed := []string{}
	for i := range list {
		named, err := n.isNamed(ctx, &list[i])
		if err != nil {
			return nil, err
		}
		if !named {
			unnamed = append(unnamed, list[i].Shard)
		}
	}
	return json.Marshal(unnamed)
}

// isNamed looks at everything that may name a shard, with its key locked, so
// that no write is under way.
func (n *Node) isNamed(ctx context.Context, q *swept) (bool, error) {
	id, err := core.ParseShardID(q.Shard)
	if err != nil {
		return true, err
	}
	key := string(q.Key)
	s := n.SlotOf(q.Bucket, key)
	lock := lockName(s, &core.RowKey{Bucket: q.Bucket, Key: key})
	if err := n.locks.lock(ctx, lock); err != nil {
		return true, fmt.Errorf("waiting for a write of the key: %w: %w", core.ErrUnavailable, err)
	}
	defer n.locks.unlock(lock)
	at := location{q.Disk, id}
	for _, k := range []core.RowKey{objectKey(q.Bucket, key), intentKey(objectName{q.Bucket, key})} {
		row, err := n.get(ctx, s, k)
		if err == nil && names(&row, at) {
			return true, nil
		}
		if err != nil && !errors.Is(err, core.ErrNotFound) {
			return true, err
		}
	}
	parts, err := n.scanOwned(ctx, &scanRequest{
		scan:  core.Scan{Bucket: q.Bucket, Space: core.SpacePart, Prefix: key, Before: key + "\x00"},
		limit: maxPartsScanned, only: []core.SlotID{s},
	})
	if err != nil {
		return true, err
	}
	if len(parts.held) != 1 || parts.more {
		return true, fmt.Errorf("slot %d changed hands: %w", s, core.ErrUnavailable)
	}
	for i := range parts.found {
		if names(&parts.found[i].Row, at) {
			return true, nil
		}
	}
	n.garbage.bar(id)
	return false, nil
}

// maxPartsScanned bounds the parts of all uploads of one key that a sweep looks
// at; with more it leaves the key alone.
const maxPartsScanned = 50_000

// names says whether a row's record names the shard.
func names(r *core.Row, at location) bool {
	all := map[location]bool{}
	if rec := recordOf(r); rec != nil {
		locations(rec, all)
		return all[at]
	}
	return true // not understood: better kept
}
