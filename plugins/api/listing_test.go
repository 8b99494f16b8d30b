package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/shoalstore/shoal/core"
)

func someObjects() []Object {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC)
	var out []Object
	for _, name := range []string{
		"a", "dir/b.txt", `quote"and\slash`, "line\nbreak\ttab", "nul\x00del\x7f", "<html>&", "grün/日本/🐟",
		strings.Repeat("long", 256), "trailing\\", `{"name":"x"}`, "\u2028",
	} {
		out = append(out, Object{Name: name, Size: int64(len(name)) << 20, ETag: "0cc175b9c0f1b6a831c399e269772661-3", Cached: len(name)%2 == 0, Modified: at})
		at = at.Add(time.Millisecond)
	}
	return append(out, Object{Name: "zero", Modified: time.Unix(0, 0).UTC()})
}

func TestLinesAreJSON(t *testing.T) {
	for _, o := range someObjects() {
		line := AppendObject(nil, &o)
		var got Object
		if err := json.Unmarshal(line, &got); err != nil || got != o {
			t.Errorf("%s: got %+v, %v, want %+v", line, got, err, o)
		}
		if bytes.Count(line, []byte{'\n'}) != 1 {
			t.Errorf("%q is not one line", line)
		}
		got = Object{}
		if err := json.Unmarshal(AppendName(nil, o.Name), &got); err != nil || got.Name != o.Name {
			t.Errorf("name %q: got %q, %v", o.Name, got.Name, err)
		}
	}
}

func TestListingRoundTrip(t *testing.T) {
	for _, names := range []bool{false, true} {
		var b bytes.Buffer
		w := NewListWriter(&b, names)
		for _, o := range someObjects() {
			if err := w.Object(&o); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.End(true, nil); err != nil {
			t.Fatal(err)
		}
		for _, r := range []io.Reader{bytes.NewReader(b.Bytes()), iotest.OneByteReader(bytes.NewReader(b.Bytes()))} {
			got, end, err := readAll(r)
			if err != nil || !end.More || end.Error != nil {
				t.Fatalf("got end %+v, %v", end, err)
			}
			for i, want := range someObjects() {
				if names {
					want = Object{Name: want.Name}
				}
				if got[i] != want {
					t.Errorf("got %+v, want %+v", got[i], want)
				}
			}
		}
	}
}

func readAll(r io.Reader) (out []Object, end *ListEnd, err error) {
	l := NewListReader(r)
	for {
		var o Object
		if end, err = l.Next(&o); end != nil || err != nil {
			return out, end, err
		}
		out = append(out, o)
	}
}

// TestCutOffListingIsAnError cuts a listing at every byte: none may look whole.
func TestCutOffListingIsAnError(t *testing.T) {
	var b bytes.Buffer
	w := NewListWriter(&b, false)
	for _, o := range someObjects()[:4] {
		_ = w.Object(&o)
	}
	_ = w.End(false, nil)
	for n := range b.Len() {
		if _, end, err := readAll(bytes.NewReader(b.Bytes()[:n])); err == nil {
			t.Fatalf("%d of %d bytes: got end %+v, want an error", n, b.Len(), end)
		}
	}
}

func TestListingCarriesItsError(t *testing.T) {
	var b bytes.Buffer
	w := NewListWriter(&b, false)
	_ = w.End(false, fmt.Errorf("slot 3 has no owner: %w", core.ErrUnavailable))
	_, end, err := readAll(&b)
	if err != nil || end.Error == nil || !errors.Is(end.Error, core.ErrUnavailable) {
		t.Errorf("got %+v, %v", end, err)
	}
}

func FuzzParseObject(f *testing.F) {
	for _, o := range someObjects() {
		f.Add(AppendObject(nil, &o))
		f.Add(AppendName(nil, o.Name))
	}
	f.Add([]byte(`{"name":"a","size":01,"etag":"","cached":true,"modified":"2026-01-02T03:04:05Z"}` + "\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		var got, want Object
		if !parseObject(line, &got) {
			return
		}
		if bytes.Contains(line, []byte(`"size":0`)) {
			return // a leading zero is not JSON; the short cut does not mind
		}
		if err := json.Unmarshal(line, &want); err != nil {
			if strings.Contains(err.Error(), "parsing time") {
				return // JSON is stricter about times than time.Parse
			}
			t.Fatalf("%q: accepted; json says %v", line, err)
		}
		if got.Name != want.Name || got.Size != want.Size || got.ETag != want.ETag || got.Cached != want.Cached || !got.Modified.Equal(want.Modified) {
			t.Errorf("%q: got %+v, json has %+v", line, got, want)
		}
	})
}

func BenchmarkListing(b *testing.B) {
	const keys = 100_000
	var data bytes.Buffer
	o := Object{Size: 131072, ETag: "0cc175b9c0f1b6a831c399e269772661", Cached: true, Modified: time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC)}
	write := func(w io.Writer, names bool) {
		l := NewListWriter(w, names)
		for i := range keys {
			o.Name = fmt.Sprintf("train/shard-%08d.tar", i)
			_ = l.Object(&o)
		}
		_ = l.End(false, nil)
	}
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			write(io.Discard, false)
		}
		b.ReportMetric(keys*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
	})
	for _, names := range []bool{false, true} {
		data.Reset()
		write(&data, names)
		b.Run(fmt.Sprintf("read/names=%v", names), func(b *testing.B) {
			for b.Loop() {
				if got, _, err := readAll(bytes.NewReader(data.Bytes())); err != nil || len(got) != keys {
					b.Fatal(len(got), err)
				}
			}
			b.ReportMetric(keys*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}
