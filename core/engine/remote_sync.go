package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/shoalstore/shoal/core"
)

// CopiedBy returns the job that wrote an object as a copy, "" if none did or there is
// no such object.
func (n *Node) CopiedBy(ctx context.Context, bucket core.Bucket, key string) (jobID string, err error) {
	_, jobID, _, err = n.copyAt(ctx, &bucket, key)
	return jobID, err
}

// RemoveCopy removes an object that a job wrote as a copy, if ours says so of the job,
// and says whether it did. What was written by others stays.
func (n *Node) RemoveCopy(ctx context.Context, bucket core.Bucket, key string, ours func(jobID string) bool) (bool, error) {
	etag, jobID, row, err := n.copyAt(ctx, &bucket, key)
	if err != nil || jobID == "" || !ours(jobID) {
		return false, err
	}
	if bucket.Name.Remote() {
		err = n.deleteRemote(ctx, &bucket, key, core.Conditions{IfMatch: []string{etag}}, core.NewRequestID())
		if errors.Is(err, core.ErrPrecondition) || errors.Is(err, core.ErrNotFound) {
			return false, nil // changed meanwhile
		}
		return err == nil, err
	}
	m := n.mutation(&bucket, key, core.NewRequestID())
	m.checks = []check{{kind: checkVersion, row: row.RowKey, version: row.Version}}
	m.entry.Rows = []core.Row{{RowKey: row.RowKey, Deleted: true}}
	_, err = n.write(ctx, m)
	return err == nil, err
}

// copyAt returns an object's ETag and the job that wrote it, of a bucket of the
// cluster's own its row, too.
func (n *Node) copyAt(ctx context.Context, bucket *core.Bucket, key string) (etag, jobID string, row core.Row, err error) {
	if bucket.Name.Remote() {
		b, err := n.remote(bucket)
		if err != nil {
			return "", "", row, err
		}
		o, err := b.head(ctx, key)
		if errors.Is(err, core.ErrNotFound) {
			return "", "", row, nil
		}
		return o.ETag, CopyOf(&o), row, err
	}
	rec, row, err := n.record(ctx, bucket.ID, key)
	switch {
	case errors.Is(err, core.ErrNotFound):
		return "", "", row, nil
	case err != nil:
		return "", "", row, err
	}
	return rec.ETag, rec.Origin.Job, row, nil
}

// Gone says whether a remote does not have an object, by a listing: that tells a
// bucket which is not there from an object.
func (n *Node) Gone(ctx context.Context, bucket core.Bucket, key string) (bool, error) {
	l, err := n.listRemote(ctx, &bucket, core.RemoteListOptions{Prefix: key, Max: 1})
	if err != nil {
		return false, fmt.Errorf("is %s/%s gone: %w", bucket.Name, key, err)
	}
	return len(l.Objects) == 0 || l.Objects[0].Key != key, nil
}
