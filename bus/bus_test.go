package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

func TestSnapshot(t *testing.T) {
	t.Parallel()
	s := bus.Snapshot{Generation: 3, Buckets: []bus.BucketSnapshot{{Name: "map", Entries: []bus.KeyValue{{Key: "b", Value: []byte("2")}, {Key: "a", Value: []byte("1")}}}}}
	e, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d, err := bus.DecodeSnapshot(e)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(d)
	want := `{"generation":3,"buckets":[{"name":"map","entries":[{"key":"a","value":"MQ=="},{"key":"b","value":"Mg=="}]}]}`
	if string(got) != want {
		t.Errorf("snapshot: got %s, want %s", got, want)
	}
	for i := range e {
		bad := append([]byte{}, e...)
		bad[i] ^= 1
		if _, err := bus.DecodeSnapshot(bad); !errors.Is(err, core.ErrCorrupt) {
			t.Fatalf("byte %d flipped: got %v, want %v", i, err, core.ErrCorrupt)
		}
	}
}

func TestFault(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		json   string
		status int
		back   error
	}{
		{fmt.Errorf("job %q: %w", "x", core.ErrNotFound), `{"error":{"code":"not_found","message":"job \"x\": not found"}}`, 404, core.ErrNotFound},
		{core.ErrNoSuchBucket, `{"error":{"code":"no_such_bucket","message":"no such bucket"}}`, 404, core.ErrNoSuchBucket},
		{core.ErrUnknownOutcome, `{"error":{"code":"outcome_unknown","message":"outcome unknown"}}`, 503, core.ErrUnknownOutcome},
		{core.ErrNotOwner, `{"error":{"code":"unavailable","message":"not the owner of the slot"}}`, 503, core.ErrUnavailable},
		{bus.ErrNoValue, `{"error":{"code":"unavailable","message":"the register holds no value: unavailable"}}`, 503, core.ErrUnavailable},
		{context.DeadlineExceeded, `{"error":{"code":"timeout","message":"context deadline exceeded"}}`, 503, context.DeadlineExceeded},
		{errors.New("odd"), `{"error":{"code":"internal","message":"odd"}}`, 500, nil},
	} {
		f := bus.FaultOf(c.err)
		if got := string(f.Encode()); got != c.json || f.Status != c.status {
			t.Errorf("%v: got %s, status %d, want %s, status %d", c.err, got, f.Status, c.json, c.status)
		}
		back := bus.DecodeFault(f.Encode())
		if back.Error() != c.err.Error() || c.back != nil && !errors.Is(back, c.back) {
			t.Errorf("%v came back as %v", c.err, back)
		}
	}
	for _, b := range []string{"", "x", "{}", `{"error":{}}`, `{"error":"text"}`} {
		if err := bus.DecodeFault([]byte(b)); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("fault %q: got %v, want %v", b, err, core.ErrCorrupt)
		}
	}
}

func TestEvent(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000000, time.UTC)
	e, err := bus.NewEvent(bus.EventBucket, "s3://a.b c", "created", "/c1/nodes/n1", at, map[string]int{"n": 1})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.Topic(), "shoal.event.bucket.s3://a%2Eb%20c.created"; got != want {
		t.Errorf("topic: got %s, want %s", got, want)
	}
	e.ID = "id1"
	b, err := e.Encode()
	want := `{"specversion":"1.0","id":"id1","source":"/c1/nodes/n1","type":"shoal.bucket.created","subject":"s3://a.b c",` +
		`"time":"2026-01-02T03:04:05.006Z","datacontenttype":"application/json","data":{"n":1}}`
	if err != nil || string(b) != want {
		t.Errorf("event: got %s, %v, want %s", b, err, want)
	}
	d, err := bus.DecodeEvent(b)
	if err != nil || d.Topic() != e.Topic() || d.ID != e.ID || string(d.Data) != string(e.Data) {
		t.Errorf("event came back as %+v, %v", d, err)
	}
	for _, bad := range []string{
		``, `{}`, `{"specversion":"0.3","id":"1","source":"s","type":"shoal.job.done","subject":"j"}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"com.other.thing","subject":"j"}`,
		`{"specversion":"1.0","id":"","source":"s","type":"shoal.job.done","subject":"j"}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"shoal.job.a.b","subject":"j"}`,
	} {
		if _, err := bus.DecodeEvent([]byte(bad)); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("event %s: got %v, want %v", bad, err, core.ErrInvalid)
		}
	}
}

func TestMatchTopic(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, topic string
		want           bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a.b.c", false},
		{"a.b.c", "a.b", false},
		{"a.*", "a.b", true},
		{"a.*", "a.b.c", false},
		{"a.>", "a.b.c", true},
		{"a.>", "a", false},
		{">", "a", true},
		{"*.b", "a.b", true},
		{"a.*.c", "a.b.d", false},
	} {
		if got := bus.MatchTopic(c.pattern, c.topic); got != c.want {
			t.Errorf("%s under %s: got %v", c.topic, c.pattern, got)
		}
	}
}
