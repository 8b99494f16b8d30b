package engine_test

import (
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/shoalstore/shoal/core"
)

func (f *fakeRemote) meets(key string, c core.RemoteCondition) error {
	o := f.objects[key]
	if c.Absent && o != nil || c.Version != "" && (o == nil || o.Version != c.Version) {
		return fmt.Errorf("fake: %q: %w", key, core.ErrPrecondition)
	}
	return nil
}

func (f *fakeRemote) Put(ctx context.Context, _, key string, p core.RemotePut) (core.RemoteObject, error) {
	if err := f.begin(ctx, "put", key); err != nil {
		return core.RemoteObject{}, err
	}
	body, err := p.Open(ctx)
	if err != nil {
		return core.RemoteObject{}, err
	}
	data, err := io.ReadAll(body)
	_ = body.Close()
	if err != nil {
		return core.RemoteObject{}, err
	}
	if int64(len(data)) != p.Size {
		return core.RemoteObject{}, fmt.Errorf("fake: body of %d bytes, not %d: %w", len(data), p.Size, core.ErrInvalid)
	}
	return f.write(key, data, &p, p.If, "")
}

// write lets a write take place.
func (f *fakeRemote) write(key string, data []byte, p *core.RemotePut, c core.RemoteCondition, etag string) (core.RemoteObject, error) {
	f.mu.Lock()
	if err := f.meets(key, c); err != nil {
		f.mu.Unlock()
		return core.RemoteObject{}, err
	}
	o := f.put(key, data, func(o *core.RemoteObject) {
		o.Headers, o.Meta, o.Tags = maps.Clone(p.Headers), maps.Clone(p.Meta), maps.Clone(p.Tags)
		if etag != "" {
			o.ETag, o.MD5 = etag, nil
		}
	})
	on := f.onPut
	f.mu.Unlock()
	if on != nil {
		if err := on(key); err != nil {
			return core.RemoteObject{}, err
		}
	}
	return o, nil
}

func (f *fakeRemote) CreateUpload(ctx context.Context, _, key string, p core.RemotePut) (string, error) {
	if err := f.begin(ctx, "create", key); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	id := fmt.Sprint("upload", f.last)
	f.uploads[id] = &fakeUpload{p, map[int][]byte{}}
	return id, nil
}

func (f *fakeRemote) PutPart(ctx context.Context, _, key, upload string, number int, p core.RemotePut) (core.RemotePart, error) {
	if err := f.begin(ctx, "part", key); err != nil {
		return core.RemotePart{}, err
	}
	body, err := p.Open(ctx)
	if err != nil {
		return core.RemotePart{}, err
	}
	data, err := io.ReadAll(body)
	_ = body.Close()
	if err != nil || int64(len(data)) != p.Size {
		return core.RemotePart{}, fmt.Errorf("fake: part of %d bytes, not %d: %w", len(data), p.Size, errors.Join(core.ErrUnavailable, err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.uploads[upload]
	if u == nil {
		return core.RemotePart{}, fmt.Errorf("fake: %q: %w", upload, core.ErrNoSuchUpload)
	}
	u.parts[number] = data
	sum := md5.Sum(data) //nolint:gosec // S3's ETag
	return core.RemotePart{Number: number, Size: p.Size, ETag: hex.EncodeToString(sum[:])}, nil
}

func (f *fakeRemote) CompleteUpload(ctx context.Context, _, key, upload string, parts []core.RemotePart, c core.RemoteCondition) (core.RemoteObject, error) {
	if err := f.begin(ctx, "complete", key); err != nil {
		return core.RemoteObject{}, err
	}
	f.mu.Lock()
	u := f.uploads[upload]
	f.mu.Unlock()
	if u == nil {
		return core.RemoteObject{}, fmt.Errorf("fake: %q: %w", upload, core.ErrNoSuchUpload)
	}
	var data, sums []byte
	for _, p := range parts {
		data = append(data, u.parts[p.Number]...)
		sum := md5.Sum(u.parts[p.Number]) //nolint:gosec // S3's ETag
		sums = append(sums, sum[:]...)
	}
	all := md5.Sum(sums) //nolint:gosec // S3's ETag
	o, err := f.write(key, data, &u.RemotePut, c, fmt.Sprintf("%x-%d", all, len(parts)))
	if err == nil {
		f.mu.Lock()
		delete(f.uploads, upload)
		f.mu.Unlock()
	}
	return o, err
}

func (f *fakeRemote) AbortUpload(ctx context.Context, _, key, upload string) error {
	if err := f.begin(ctx, "abort", key); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.uploads, upload)
	return nil
}

func (f *fakeRemote) Delete(ctx context.Context, _, key string, c core.RemoteCondition) error {
	if err := f.begin(ctx, "delete", key); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.meets(key, c); err != nil {
		return err
	}
	delete(f.objects, key)
	return nil
}
