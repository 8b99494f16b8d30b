package objectstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// knownSums are the checksums of "123456789", as published with each algorithm.
func knownSums() []core.Checksum {
	return []core.Checksum{
		{Algorithm: "CRC32", Value: "y/Q5Jg=="},
		{Algorithm: "CRC32C", Value: "4waSgw=="},
		{Algorithm: "CRC64NVME", Value: "rosUhgp5mIg="},
		{Algorithm: "SHA1", Value: "98O8HYCOBHMq32eZZczDTKeuNEE="},
		{Algorithm: "SHA256", Value: "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="},
	}
}

const knownBody = "123456789"

func testChecksums(t *testing.T, s *suite) {
	put := func(o core.PutOptions) (core.ObjectInfo, error) {
		o.Size, o.Request = int64(len(knownBody)), core.NewRequestID()
		return s.objects.Put(t.Context(), s.bucket, "key", strings.NewReader(knownBody), o)
	}
	for _, sum := range knownSums() {
		t.Run(sum.Algorithm, func(t *testing.T) {
			wrong := core.Checksum{Algorithm: sum.Algorithm, Value: "A" + sum.Value[1:]}
			for name, o := range map[string]core.PutOptions{
				"declared":            {Checksum: sum},
				"computed":            {Checksum: core.Checksum{Algorithm: sum.Algorithm}},
				"declared at the end": {Checksum: core.Checksum{Algorithm: sum.Algorithm}, Trailer: func() (core.Checksum, error) { return sum, nil }},
			} {
				info, err := put(o)
				if err != nil || info.Checksum != sum {
					t.Errorf("%s: got %+v, %v; want %+v", name, info.Checksum, err, sum)
				}
				head, err := s.objects.Head(t.Context(), s.bucket, "key", core.GetOptions{})
				if err != nil || head.Checksum != sum {
					t.Errorf("%s: head: got %+v, %v; want %+v", name, head.Checksum, err, sum)
				}
			}
			before := s.want(t, "key", []byte(knownBody))
			_, err := put(core.PutOptions{Checksum: wrong})
			wantErr(t, "wrong", err, core.ErrChecksum)
			_, err = put(core.PutOptions{Checksum: core.Checksum{Algorithm: sum.Algorithm}, Trailer: func() (core.Checksum, error) { return wrong, nil }})
			wantErr(t, "wrong at the end", err, core.ErrChecksum)
			if after := s.want(t, "key", []byte(knownBody)); after.Version != before.Version {
				t.Errorf("a refused put made version %s of %s", after.Version, before.Version)
			}
		})
	}
	info, err := put(core.PutOptions{})
	if err != nil || info.Checksum != (core.Checksum{}) {
		t.Errorf("none asked for: got %+v, %v", info.Checksum, err)
	}
	_, err = put(core.PutOptions{Checksum: core.Checksum{Algorithm: "MD4"}})
	wantErr(t, "unknown algorithm", err, core.ErrInvalid)
}

// errBody is what a body under test fails with.
var errBody = errors.New("body broke")

// failing delivers data and then err in place of io.EOF.
type failing struct {
	r   io.Reader
	err error
	hit func()
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if errors.Is(err, io.EOF) {
		if f.hit != nil {
			f.hit()
		}
		return n, f.err
	}
	return n, err
}

func testFailedBodies(t *testing.T, s *suite) {
	for _, n := range []int{1, small, large, huge} {
		data := random(n)
		whole := int64(n)
		type attempt struct {
			body io.Reader
			o    core.PutOptions
			want error
		}
		// body fails after the first k bytes.
		body := func(k int) io.Reader { return &failing{r: bytes.NewReader(data[:k]), err: errBody} }
		attempts := map[string]func() attempt{
			"fails at once":                  func() attempt { return attempt{body(0), core.PutOptions{Size: whole}, errBody} },
			"fails in the middle":            func() attempt { return attempt{body(n / 2), core.PutOptions{Size: whole}, errBody} },
			"fails in the middle, no size":   func() attempt { return attempt{body(n / 2), core.PutOptions{Size: -1}, errBody} },
			"fails in place of EOF":          func() attempt { return attempt{body(n), core.PutOptions{Size: whole}, errBody} },
			"fails in place of EOF, no size": func() attempt { return attempt{body(n), core.PutOptions{Size: -1}, errBody} },
			"is too short":                   func() attempt { return attempt{bytes.NewReader(data[:n-1]), core.PutOptions{Size: whole}, nil} },
			"is too long":                    func() attempt { return attempt{bytes.NewReader(data), core.PutOptions{Size: whole - 1}, nil} },
			"has another MD5": func() attempt {
				return attempt{bytes.NewReader(data), core.PutOptions{Size: whole, MD5: md5Of(data[1:])}, core.ErrChecksum}
			},
			"has another MD5, no size": func() attempt {
				return attempt{bytes.NewReader(data), core.PutOptions{Size: -1, MD5: md5Of(data[1:])}, core.ErrChecksum}
			},
			"has a trailer that cannot be read": func() attempt {
				return attempt{bytes.NewReader(data), core.PutOptions{
					Size: whole, Checksum: core.Checksum{Algorithm: "CRC32C"},
					Trailer: func() (core.Checksum, error) { return core.Checksum{}, errBody },
				}, errBody}
			},
		}
		// The context ends while the body is read: with the first byte, and
		// after the last one.
		cancelled := func(k int) (context.Context, attempt) {
			ctx, cancel := context.WithCancel(t.Context())
			return ctx, attempt{
				&failing{r: bytes.NewReader(data[:k]), err: context.Canceled, hit: cancel},
				core.PutOptions{Size: whole},
				context.Canceled,
			}
		}
		run := func(t *testing.T, ctx context.Context, key string, a attempt) {
			t.Helper()
			a.o.Request = core.NewRequestID()
			_, err := s.objects.Put(ctx, s.bucket, key, a.body, a.o)
			if err == nil || !errors.Is(err, a.want) && a.want != nil {
				t.Errorf("put: got %v, want %v", err, a.want)
			}
		}
		for name, make := range attempts {
			t.Run(fmt.Sprintf("%s %s", sized(n), name), func(t *testing.T) {
				run(t, t.Context(), "new", make())
				s.wantAbsent(t, "new")
				old := random(small)
				s.put(t, "old", old)
				run(t, t.Context(), "old", make())
				s.want(t, "old", old)
			})
		}
		for _, k := range []int{0, n / 2, n} {
			t.Run(fmt.Sprintf("%s cancelled after %d", sized(n), k), func(t *testing.T) {
				ctx, a := cancelled(k)
				run(t, ctx, "new", a)
				s.wantAbsent(t, "new")
			})
		}
	}
}

func testRepeats(t *testing.T, s *suite) {
	put := func(key, data string, r core.RequestID, c core.Conditions) (core.ObjectInfo, error) {
		return s.objects.Put(t.Context(), s.bucket, key, strings.NewReader(data),
			core.PutOptions{Size: int64(len(data)), Request: r, Conditions: c})
	}
	r := core.NewRequestID()
	once := core.Conditions{IfNoneMatch: []string{"*"}}
	first, err := put("key", "one", r, once)
	if err != nil {
		t.Fatalf("put: %v", err)
	}
	again, err := put("key", "one", r, once)
	if err != nil || again.Version != first.Version || again.ETag != first.ETag {
		t.Errorf("put again: got %s, %s, %v; want the first answer %s, %s", again.Version, again.ETag, err, first.Version, first.ETag)
	}
	second := s.put(t, "key", []byte("two"))
	again, err = put("key", "one", r, once)
	if err != nil || again.Version != first.Version {
		t.Errorf("put again after another: got %s, %v; want %s", again.Version, err, first.Version)
	}
	if now := s.want(t, "key", []byte("two")); now.Version != second.Version {
		t.Errorf("a repeated put made version %s", now.Version)
	}
	// The same request id on another key is another request.
	if _, err := put("other", "three", r, once); err != nil {
		t.Errorf("put of another key: %v", err)
	}
	s.want(t, "other", []byte("three"))

	d := core.NewRequestID()
	for range 2 {
		if err := s.objects.Delete(t.Context(), s.bucket, "key", core.Conditions{}, d); err != nil {
			t.Fatalf("delete: %v", err)
		}
		s.wantAbsent(t, "key")
	}
	s.put(t, "key", []byte("four"))
	if err := s.objects.Delete(t.Context(), s.bucket, "key", core.Conditions{}, d); err != nil {
		t.Errorf("delete again: %v", err)
	}
	s.want(t, "key", []byte("four"))
}
