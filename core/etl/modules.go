package etl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
)

// digestOf is the digest of code.
func digestOf(code []byte) string {
	sum := sha256.Sum256(code)
	return digestPrefix + hex.EncodeToString(sum[:])
}

const (
	digestPrefix = "sha256:"
	modulePrefix = "modules/sha256/"
)

// Modules keeps the code of transforms in a bucket.
type Modules struct {
	Objects core.Objects
	// Bucket finds the bucket; make creates it if it is not there.
	Bucket func(ctx context.Context, create bool) (core.Bucket, error)
}

func moduleKey(digest string) string { return modulePrefix + strings.TrimPrefix(digest, digestPrefix) }

// Put stores code. It does so even if it is there: that makes it new again.
func (m Modules) Put(ctx context.Context, digest string, code []byte) error {
	b, err := m.Bucket(ctx, true)
	if err != nil {
		return fmt.Errorf("the bucket of transforms: %w", err)
	}
	_, err = m.Objects.Put(ctx, b, moduleKey(digest), bytes.NewReader(code), core.PutOptions{
		Size: int64(len(code)), Request: core.NewRequestID(), Fresh: true,
	})
	if err != nil {
		return fmt.Errorf("store the code %s: %w", digest, err)
	}
	return nil
}

// Get returns code of that size and digest. That it is not there is
// [core.ErrUnavailable]: it was, and nobody knows better.
func (m Modules) Get(ctx context.Context, digest string, size int64) (code []byte, err error) {
	defer func() {
		if errors.Is(err, core.ErrNotFound) {
			err = fmt.Errorf("%w: %w", core.ErrUnavailable, err)
		}
		if err != nil {
			err = fmt.Errorf("fetch the code %s: %w", digest, err)
		}
	}()
	b, err := m.Bucket(ctx, false)
	if err != nil {
		return nil, err
	}
	o, err := m.Objects.Get(ctx, b, moduleKey(digest), core.GetOptions{})
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Body.Close() }()
	if o.Length != size {
		return nil, fmt.Errorf("%d bytes, want %d: %w", o.Length, size, core.ErrCorrupt)
	}
	code = make([]byte, size)
	if _, err := io.ReadFull(o.Body, code); err != nil {
		return nil, err
	}
	if got := digestOf(code); got != digest {
		return nil, fmt.Errorf("its digest is %s: %w", got, core.ErrCorrupt)
	}
	return code, nil
}

// Clean removes code that was stored before a time and that nobody needs.
func (m Modules) Clean(ctx context.Context, before time.Time, needed func(digest string) bool) error {
	b, err := m.Bucket(ctx, false)
	if errors.Is(err, core.ErrNoSuchBucket) {
		return nil
	}
	if err != nil {
		return err
	}
	after := ""
	for {
		page, err := m.Objects.List(ctx, b, core.ListOptions{Prefix: modulePrefix, After: after, Max: 1000})
		if err != nil {
			return fmt.Errorf("list the code of transforms: %w", err)
		}
		for _, o := range page.Objects {
			digest := digestPrefix + strings.TrimPrefix(o.Key, modulePrefix)
			if needed(digest) || !o.Modified.Before(before) {
				continue
			}
			// Who stores the same code meanwhile keeps it.
			err := m.Objects.Delete(ctx, b, o.Key, core.Conditions{IfUnmodifiedSince: before}, core.NewRequestID())
			if err != nil && !errors.Is(err, core.ErrPrecondition) {
				return fmt.Errorf("remove the code %s: %w", digest, err)
			}
		}
		if !page.More {
			return nil
		}
		after = page.Next
	}
}
