package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/cloudtest"
	"github.com/shoalstore/shoal/scripts/clouds"
)

// memory is a store without buckets.
type memory map[string]string

func (m memory) Put(_ context.Context, _, key string, body io.ReadSeeker) error {
	b, err := io.ReadAll(body)
	m[key] = string(b)
	return err
}

func (m memory) Open(_ context.Context, _, key string) (io.ReadCloser, error) {
	if s, ok := m[key]; ok {
		return io.NopCloser(strings.NewReader(s)), nil
	}
	return nil, core.ErrNotFound
}

func (m memory) List(context.Context, string) iter.Seq2[clouds.Object, error] {
	return func(yield func(clouds.Object, error) bool) {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !yield(clouds.Object{Key: key, Size: int64(len(m[key]))}, nil) {
				return
			}
		}
	}
}

// TestCompareAt damages what lies past the cluster.
func TestCompareAt(t *testing.T) {
	set := newDataSet(&options{objects: 20, seed: 1})
	there := memory{}
	for _, name := range set.names {
		data := content(set.seed, name, set.sizes[name])
		there[name] = string(data)
		sum, err := sumOf(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		set.objects[name] = sum
	}
	b := core.BucketName{Provider: core.GCS, Name: "dst"}
	if err := set.compareAt(t.Context(), there, b); err != nil {
		t.Fatalf("got %v, want no difference yet", err)
	}
	delete(there, set.names[0])
	there[set.names[1]] = strings.Repeat("x", len(there[set.names[1]]))
	there["nobody's"] = "x"
	d, ok := errors.AsType[*differenceError](set.compareAt(t.Context(), there, b))
	if !ok || d.lost != 2 || d.wrong != 2 {
		t.Errorf("got %v, want what is not listed and cannot be read lost, and 2 wrong", d)
	}
}

// TestInFlight: what was under way at either moment, or went by in between, may
// repeat; what was through before may not.
func TestInFlight(t *testing.T) {
	before := map[string]cloudtest.Upload{
		"through": {Sent: 1, Written: 1}, "ends": {Sent: 1, Active: 1}, "again": {Sent: 1, Written: 1},
	}
	after := map[string]cloudtest.Upload{
		"through": {Sent: 1, Written: 1}, "ends": {Sent: 1, Written: 1}, "again": {Sent: 2, Written: 1, Active: 1}, "new": {Sent: 1, Written: 1},
	}
	got := inFlight(before, after)
	if want := "map[ends:true new:true]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestMixedSizes: most objects are small, and some go in parts.
func TestMixedSizes(t *testing.T) {
	set := newDataSet(&options{objects: 2000, seed: 1})
	parts := 0
	for _, size := range set.sizes {
		if size == large {
			parts++
		} else if size < 1 || size > mixedMost {
			t.Errorf("got an object of %d bytes", size)
		}
	}
	if parts != 2000/largeEvery {
		t.Errorf("%d objects go in parts, want %d", parts, 2000/largeEvery)
	}
}
