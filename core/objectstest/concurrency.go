package objectstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// failingNever is a reader of data without any other method than Read.
type failingNever struct{ data []byte }

func (f *failingNever) Read(p []byte) (int, error) {
	if len(f.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, f.data)
	f.data = f.data[n:]
	return n, nil
}

const workers = 8

// parallel runs f in several goroutines and waits.
func parallel(f func(worker int)) {
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { f(w) })
	}
	wg.Wait()
}

func testConcurrency(t *testing.T, s *suite) {
	t.Run("one creates", func(t *testing.T) { testOneCreates(t, s) })
	t.Run("overtaken", func(t *testing.T) { testOvertaken(t, s) })
	t.Run("counter", func(t *testing.T) { testCounter(t, s) })
	t.Run("no mixtures", func(t *testing.T) { testMixtures(t, s) })
	t.Run("one completes", func(t *testing.T) { testOneCompletes(t, s) })
}

// Of several conditional creates exactly one succeeds.
func testOneCreates(t *testing.T, s *suite) {
	for round := range 10 {
		key := fmt.Sprint("create ", round)
		var won atomic.Int32
		parallel(func(w int) {
			data := fmt.Sprint("worker ", w)
			_, err := s.objects.Put(t.Context(), s.bucket, key, strings.NewReader(data), core.PutOptions{
				Size: int64(len(data)), Conditions: core.Conditions{IfNoneMatch: []string{"*"}}, Request: core.NewRequestID(),
			})
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, core.ErrPrecondition) && !errors.Is(err, core.ErrConflict):
				t.Errorf("put: got %v", err)
			}
		})
		if won.Load() != 1 {
			t.Errorf("%s: %d puts succeeded, want 1", key, won.Load())
		}
	}
}

// A write whose body is slow hinders no other write of the key, and is judged
// by what the key holds when its body has come.
func testOvertaken(t *testing.T, s *suite) {
	for _, n := range []int{small, large} {
		slow, fast := random(n), random(n+1)
		put := func(key string, r core.RequestID, body io.Reader, c core.Conditions) (core.ObjectInfo, error) {
			return s.objects.Put(t.Context(), s.bucket, key, body, core.PutOptions{Size: -1, Request: r, Conditions: c})
		}
		// overtaken is the slow body; before it ends f runs.
		overtaken := func(f func()) io.Reader {
			return &failing{r: bytes.NewReader(slow), err: io.EOF, hit: sync.OnceFunc(f)}
		}
		create := core.Conditions{IfNoneMatch: []string{"*"}}
		key := fmt.Sprint("create of ", n)
		_, err := put(key, core.NewRequestID(), overtaken(func() {
			_, err := put(key, core.NewRequestID(), bytes.NewReader(fast), create)
			wantErr(t, "fast create", err, nil)
		}), create)
		wantErr(t, "slow create", err, core.ErrPrecondition)
		s.want(t, key, fast)

		key = fmt.Sprint("put of ", n)
		_, err = put(key, core.NewRequestID(), overtaken(func() {
			_, err := put(key, core.NewRequestID(), bytes.NewReader(fast), core.Conditions{})
			wantErr(t, "fast put", err, nil)
		}), core.Conditions{})
		wantErr(t, "slow put", err, nil)
		s.want(t, key, slow)

		// The same request twice at once: both get one answer.
		key = fmt.Sprint("repeat of ", n)
		r := core.NewRequestID()
		var first core.ObjectInfo
		second, err := put(key, r, overtaken(func() {
			var err error
			first, err = put(key, r, bytes.NewReader(slow), create)
			wantErr(t, "request", err, nil)
		}), create)
		wantErr(t, "the same request", err, nil)
		if first.Version != second.Version {
			t.Errorf("the same request: got version %s, want %s", second.Version, first.Version)
		}
	}
}

// A counter kept by compare-and-set loses no step.
func testCounter(t *testing.T, s *suite) {
	const steps = 10
	s.put(t, "counter", []byte("0"))
	add := func(ctx context.Context) error {
		obj, err := s.objects.Get(ctx, s.bucket, "counter", core.GetOptions{})
		if err != nil {
			return err
		}
		b, err := io.ReadAll(obj.Body)
		if err := errors.Join(err, obj.Body.Close()); err != nil {
			return err
		}
		n, err := strconv.Atoi(string(b))
		if err != nil {
			return err
		}
		next := strconv.Itoa(n + 1)
		_, err = s.objects.Put(ctx, s.bucket, "counter", strings.NewReader(next), core.PutOptions{
			Size: int64(len(next)), Conditions: core.Conditions{IfMatch: []string{obj.ETag}}, Request: core.NewRequestID(),
		})
		return err
	}
	parallel(func(int) {
		for range steps {
			err := add(t.Context())
			for errors.Is(err, core.ErrPrecondition) || errors.Is(err, core.ErrConflict) {
				err = add(t.Context())
			}
			if err != nil {
				t.Errorf("add: %v", err)
				return
			}
		}
	})
	s.want(t, "counter", []byte(strconv.Itoa(workers*steps)))
}

// A read sees one write's data, never a mixture.
func testMixtures(t *testing.T, s *suite) {
	sizes := []int{small, large}
	fill := func(w int) []byte { return bytes.Repeat([]byte{byte('a' + w)}, sizes[w%len(sizes)]+w) }
	s.put(t, "mixed", fill(0))
	parallel(func(w int) {
		for range 10 {
			if w%2 == 0 {
				data := fill(w)
				if _, err := s.objects.Put(t.Context(), s.bucket, "mixed", bytes.NewReader(data),
					core.PutOptions{Size: int64(len(data)), Request: core.NewRequestID()}); err != nil {
					t.Errorf("put: %v", err)
				}
				continue
			}
			obj, got, err := s.read(t, "mixed", core.GetOptions{})
			if err != nil || len(got) == 0 {
				t.Errorf("get: got %d bytes, %v", len(got), err)
				return
			}
			if want := fill(int(got[0] - 'a')); !bytes.Equal(got, want) || obj.Size != int64(len(want)) {
				t.Errorf("get: got a mixture of %d bytes that begins with %q", len(got), got[0])
			}
		}
	})
}

// Of several Completes of one upload all that succeed have the same answer.
func testOneCompletes(t *testing.T, s *suite) {
	u := s.begin(t, "completed", core.PutOptions{})
	p := s.part(t, u, 1, random(small))
	var mu sync.Mutex
	versions := map[core.Version]int{}
	parallel(func(int) {
		info, err := s.complete(t, u, []core.CompletePart{p}, anySize())
		if err != nil {
			if !errors.Is(err, core.ErrConflict) {
				t.Errorf("complete: %v", err)
			}
			return
		}
		mu.Lock()
		defer mu.Unlock()
		versions[info.Version]++
	})
	if len(versions) != 1 {
		t.Errorf("complete: got the answers %v, want one", versions)
	}
}
