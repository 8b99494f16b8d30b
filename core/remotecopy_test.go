package core

import (
	"reflect"
	"testing"
)

// partialRecord has the bytes 10 to 20 and 20 to 25 and 90 to 100 of 100.
func partialRecord() *Record {
	r := &Record{Size: 100, ETag: "x", Scheme: None(), Remote: &RemoteCopy{
		Version: "v", Partial: true, Runs: []Run{{10, 10}, {20, 5}, {90, 10}},
	}}
	for i, run := range r.Remote.Runs {
		r.Extents = append(r.Extents, Extent{ID: ExtentID{byte(i + 1)}, Size: run.Size, Scheme: None(), Unit: 1, Places: []Place{{Disk: 1}}})
	}
	return r
}

func TestMissingRuns(t *testing.T) {
	r := partialRecord()
	for _, c := range []struct {
		start, end int64
		want       []Run
	}{
		{0, 100, []Run{{0, 10}, {25, 65}}},
		{0, 1 << 40, []Run{{0, 10}, {25, 65}}},
		{-5, 5, []Run{{0, 5}}},
		{10, 25, nil},
		{12, 22, nil},
		{24, 26, []Run{{25, 1}}},
		{5, 12, []Run{{5, 5}}},
		{30, 40, []Run{{30, 10}}},
		{80, 95, []Run{{80, 10}}},
		{95, 100, nil},
		{50, 50, nil},
		{100, 200, nil},
	} {
		if got := r.MissingRuns(c.start, c.end); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d to %d: got %v, want %v", c.start, c.end, got, c.want)
		}
	}
}

func TestRemoteCopy(t *testing.T) {
	part := partialRecord()
	full := &Record{Size: 9, Scheme: None(), Remote: &RemoteCopy{Version: "v"}}
	tiled := partialRecord()
	tiled.Size, tiled.Extents, tiled.Remote.Runs = 15, tiled.Extents[:2], []Run{{0, 10}, {10, 5}}
	metadata := &Record{Size: 9, Remote: &RemoteCopy{Version: "v", Partial: true}}
	empty := &Record{Remote: &RemoteCopy{Version: "v", Partial: true}}
	for _, c := range []struct {
		name            string
		r               *Record
		whole, metadata bool
		stored          int64
	}{
		{"of the cluster's own", testRecord(), true, false, 1 << 40},
		{"whole", full, true, false, 9},
		{"whole, in runs", tiled, true, false, 15},
		{"in part", part, false, false, 25},
		{"metadata", metadata, false, true, 0},
		{"metadata of nothing", empty, true, false, 0},
	} {
		if w, m, n := c.r.Whole(), c.r.MetadataOnly(), c.r.StoredBytes(); w != c.whole || m != c.metadata || n != c.stored {
			t.Errorf("%s: got whole %v, metadata only %v, %d bytes", c.name, w, m, n)
		}
	}
	if got, want := testRecord().ExtentRuns(), []Run{{0, 1 << 39}, {1 << 39, 0}}; !reflect.DeepEqual(got, want) {
		t.Errorf("extents lie at %v, want %v", got, want)
	}
	if got := part.ExtentRuns(); !reflect.DeepEqual(got, part.Remote.Runs) {
		t.Errorf("extents lie at %v", got)
	}
}
