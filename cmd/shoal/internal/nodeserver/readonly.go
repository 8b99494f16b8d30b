package nodeserver

import (
	"context"
	"io"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// readOnlyRemotes refuses to write to remote buckets: what is written must be at
// the remote before anybody is told so, which the engine does not see to yet.
type readOnlyRemotes struct{ core.Objects }

func mayWrite(b *core.Bucket) error {
	if b.Name.Remote() {
		return api.NotBuilt("writes to remote buckets")
	}
	return nil
}

// Put is part of core.Objects.
func (o readOnlyRemotes) Put(ctx context.Context, b core.Bucket, key string, body io.Reader, opt core.PutOptions) (core.ObjectInfo, error) {
	if err := mayWrite(&b); err != nil {
		return core.ObjectInfo{}, err
	}
	return o.Objects.Put(ctx, b, key, body, opt)
}

// Delete is part of core.Objects.
func (o readOnlyRemotes) Delete(ctx context.Context, b core.Bucket, key string, c core.Conditions, r core.RequestID) error {
	if err := mayWrite(&b); err != nil {
		return err
	}
	return o.Objects.Delete(ctx, b, key, c, r)
}

// Copy is part of core.Objects.
func (o readOnlyRemotes) Copy(ctx context.Context, from core.Bucket, fromKey string, to core.Bucket, toKey string, opt core.CopyOptions) (core.ObjectInfo, error) {
	if err := mayWrite(&to); err != nil {
		return core.ObjectInfo{}, err
	}
	return o.Objects.Copy(ctx, from, fromKey, to, toKey, opt)
}

// CreateUpload is part of core.Objects.
func (o readOnlyRemotes) CreateUpload(ctx context.Context, b core.Bucket, key string, opt core.PutOptions) (core.Upload, error) {
	if err := mayWrite(&b); err != nil {
		return core.Upload{}, err
	}
	return o.Objects.CreateUpload(ctx, b, key, opt)
}
