package engine

import (
	"context"
	"fmt"
	"maps"

	"github.com/shoalstore/shoal/core"
)

// Copy copies an object within the cluster. The copy has the source's ETag; its
// bytes are verified by their block checksums on the way.
func (o *Objects) Copy(ctx context.Context, from core.Bucket, fromKey string, to core.Bucket, toKey string, opt core.CopyOptions) (core.ObjectInfo, error) {
	if err := core.ValidateKey(toKey); err != nil {
		return core.ObjectInfo{}, err
	}
	n := o.node
	if err := n.writable(&to); err != nil {
		return core.ObjectInfo{}, err
	}
	if !to.Name.Remote() {
		if err := n.early(ctx, &to, toKey, &opt.Put); err != nil {
			return core.ObjectInfo{}, err
		}
	}
	src, err := n.open(ctx, &from, fromKey, core.GetOptions{Conditions: opt.Source}, (*core.Conditions).CheckCopySource)
	if err != nil {
		return core.ObjectInfo{}, fmt.Errorf("copy: %w", err)
	}
	defer func() { _ = src.Body.Close() }()
	put := core.PutOptions{Size: src.Length, Request: opt.Put.Request}
	if a := opt.Put.Checksum.Algorithm; a != src.Checksum.Algorithm {
		put.Checksum.Algorithm = a
	}
	dst := to
	if dst.Policy.ETag = etagKeep; to.Name.Remote() {
		dst = *plainETag(&to)
	}
	st, err := n.store(ctx, &dst, toKey, src.Body, &put, to.Policy.Inline)
	if err != nil {
		return core.ObjectInfo{}, fmt.Errorf("copy: %w", err)
	}
	if to.Name.Remote() {
		return n.copyThrough(ctx, &to, toKey, st, &src.Record, &opt)
	}
	describeCopy(&st.rec, &src.Record, &opt)
	return n.commit(ctx, &to, toKey, st, &opt.Put)
}

// describeCopy fills in what a copy says of itself.
func describeCopy(rec, src *core.Record, opt *core.CopyOptions) {
	rec.ETag, rec.Parts, rec.Remote = src.ETag, src.Parts, nil
	if rec.Checksum.Algorithm == "" {
		rec.Checksum = src.Checksum
	}
	rec.Origin = opt.Put.Origin
	rec.Headers, rec.Meta, rec.Tags = maps.Clone(src.Headers), maps.Clone(src.Meta), maps.Clone(src.Tags)
	delete(rec.Meta, originMeta)
	if opt.Replace {
		rec.Headers, rec.Meta = opt.Put.Headers, opt.Put.Meta
	}
	if opt.ReplaceTags {
		rec.Tags = opt.Put.Tags
	}
}

// CopyPart stores a part that is a run of another object.
func (o *Objects) CopyPart(ctx context.Context, from core.Bucket, fromKey string, to core.Bucket, toKey, id string, number int, opt core.CopyOptions) (core.Part, error) {
	if _, err := o.node.upload(ctx, to.ID, toKey, id); err != nil {
		return core.Part{}, err
	}
	src, err := o.node.open(ctx, &from, fromKey, core.GetOptions{Range: opt.Range, Conditions: opt.Source}, (*core.Conditions).CheckCopySource)
	if err != nil {
		return core.Part{}, fmt.Errorf("copy part: %w", err)
	}
	defer func() { _ = src.Body.Close() }()
	opt.Put.Size = src.Length
	return o.PutPart(ctx, to, toKey, id, number, src.Body, opt.Put)
}
