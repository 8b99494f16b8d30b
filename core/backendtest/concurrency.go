package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// A reader sees one object or another, never some of each.
func testConcurrency(t *testing.T, s *suite) {
	const writers, rounds = 3, 8
	var bodies [writers][]byte
	for i := range bodies {
		bodies[i] = bytes.Repeat([]byte{byte('a' + i)}, 50_000+i*30_000)
	}
	s.put(t, "shared", bodies[0], core.RemotePut{})
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for r := range rounds {
				own := fmt.Sprintf("own/%d/%d", i, r)
				if _, err := s.tryPut(t, "shared", bodies[i], core.RemotePut{}); err != nil {
					t.Errorf("put: %v", err)
				}
				if _, err := s.tryPut(t, own, []byte(own), core.RemotePut{}); err != nil {
					t.Errorf("put: %v", err)
				}
				if _, got, err := s.get(t, own, wholeObject()); err != nil || string(got) != own {
					t.Errorf("get %s: %s, %v", own, show(got), err)
				}
			}
		})
		wg.Go(func() {
			for range rounds {
				obj, got, err := s.get(t, "shared", wholeObject())
				if err != nil {
					t.Errorf("get: %v", err)
					continue
				}
				whole := false
				for _, b := range bodies {
					whole = whole || bytes.Equal(got, b)
				}
				if !whole || obj.Size != int64(len(got)) {
					t.Errorf("a mixture of %d bytes, size %d", len(got), obj.Size)
				}
			}
		})
	}
	wg.Wait()
}

// ops are one call of each method that makes a request.
func ops(b core.Backend, bucket string) map[string]func(ctx context.Context) error {
	m := map[string]func(ctx context.Context) error{
		"HeadBucket": func(ctx context.Context) error { return b.HeadBucket(ctx, bucket) },
		"Head":       func(ctx context.Context) error { _, err := b.Head(ctx, bucket, "key"); return err },
		"Get": func(ctx context.Context) error {
			_, r, err := b.Get(ctx, bucket, "key", wholeObject())
			if err == nil {
				err = r.Close()
			}
			return err
		},
	}
	a := b.Abilities()
	if !a.NoList {
		m["List"] = func(ctx context.Context) error {
			_, err := b.List(ctx, bucket, core.RemoteListOptions{Max: 10})
			return err
		}
	}
	if a.ReadOnly {
		return m
	}
	m["Put"] = func(ctx context.Context) error { return put0(ctx, b, bucket, "key", []byte("data"), core.RemotePut{}) }
	m["Put of more"] = func(ctx context.Context) error {
		return put0(ctx, b, bucket, "key", make([]byte, 3<<20), core.RemotePut{})
	}
	m["Delete"] = func(ctx context.Context) error { return b.Delete(ctx, bucket, "key", core.RemoteCondition{}) }
	if u, ok := b.(core.RemoteUploader); ok {
		m["AbortUpload"] = func(ctx context.Context) error { return u.AbortUpload(ctx, bucket, "key", "no-such-upload") }
	}
	return m
}

// writes says whether an op of ops changes anything.
func changes(op string) bool {
	return op != "HeadBucket" && op != "Head" && op != "Get" && op != "List"
}

func testCanceled(t *testing.T, s *suite) {
	s.seed(t, "key", []byte("data"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, op := range ops(s.b, s.bucket) {
		if name == "AbortUpload" {
			continue // it may know without asking that there is none
		}
		if err := op(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s under a context that has ended: got %v", name, err)
		}
	}
	s.want(t, "key", []byte("data"))
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	s.seed(t, "large", random(8<<20))
	_, r, err := s.b.Get(ctx, s.bucket, "large", wholeObject())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Errorf("read: %v", err)
	}
	cancel()
	buf := make([]byte, 64<<10)
	for range 1000 {
		if _, err = r.Read(buf); err != nil {
			break
		}
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("read after the context ended: got %v", err)
	}
}

// What is done leaves nothing behind.
func testLeaks(t *testing.T, s *suite) {
	s.seed(t, "key", []byte("data"))
	s.seed(t, "large", random(4<<20))
	round := func() {
		for name, op := range ops(s.b, s.bucket) {
			if name == "Put of more" || name == "Delete" || name == "AbortUpload" {
				continue
			}
			if err := op(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		s.readSome(t, "large", 100)
		_, _, err := s.get(t, "no", wholeObject())
		wantErr(t, "get", err, core.ErrNotFound)
		ctx, cancel := context.WithCancel(t.Context())
		_, r, err := s.b.Get(ctx, s.bucket, "large", wholeObject())
		cancel()
		if err == nil {
			_ = r.Close()
		}
	}
	for range 3 {
		round()
	}
	before := runtime.NumGoroutine()
	for range 20 {
		round()
	}
	eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= before+6 })
}

func testFailing(t *testing.T, o Options) {
	for _, f := range o.Failing(t) {
		t.Run(f.Name, func(t *testing.T) { f.check(t) })
	}
}
