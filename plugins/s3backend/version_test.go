package s3backend

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/cloudtest"
)

// A gateway to a file system has files that did not come through it, and no ETags for
// them.
func TestWithoutETag(t *testing.T) {
	dir := t.TempDir()
	s := cloudtest.Serve(t, cloudtest.Options{Dir: dir})
	b, name := open(t, options(s, s.URL())), bucket(t, s)
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	place := func(key, data string, at time.Time) {
		t.Helper()
		file := filepath.Join(dir, "data", name, key)
		if err := errors.Join(os.WriteFile(file, []byte(data), 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	place("key", "0123456789", at)
	o, err := b.Head(t.Context(), name, "key")
	if err != nil || o.Version == "" || o.ETag == "" || o.Size != 10 || o.MD5 != nil {
		t.Fatalf("head: %+v, %v", o, err)
	}
	same := func(what string, got core.RemoteObject, err error) {
		t.Helper()
		if err != nil || got.Version != o.Version || got.ETag != o.ETag || got.Size != o.Size {
			t.Errorf("%s: got %+v, %v; want %+v", what, got, err, o)
		}
	}
	l, err := b.List(t.Context(), name, core.RemoteListOptions{})
	if err != nil || len(l.Objects) != 1 {
		t.Fatalf("list: %+v, %v", l, err)
	}
	same("list", l.Objects[0], nil)
	for what, g := range map[string]core.RemoteGet{"whole": {Length: -1}, "range": {Offset: 3, Length: 4}, "tail": {Offset: 9, Length: -1}} {
		for _, v := range []core.RemoteVersion{"", o.Version} {
			g.Version = v
			got, body, err := b.Get(t.Context(), name, "key", g)
			same(what, got, err)
			if err != nil {
				continue
			}
			want := "0123456789"[g.Offset:]
			if g.Length > 0 {
				want = want[:g.Length]
			}
			if data := read(t, body); data != want {
				t.Errorf("%s: got %q, want %q", what, data, want)
			}
			_ = body.Close()
		}
	}
	c, err := b.Copy(t.Context(), name, "key", o.Version, name, "copy", core.RemotePut{})
	if err != nil || c.Size != 10 || strings.HasPrefix(c.ETag, dated) {
		t.Errorf("copy: %+v, %v", c, err)
	}

	// It changes: first its time only, then its size too.
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, core.ErrPrecondition) {
			t.Errorf("%s: got %v, want ErrPrecondition", what, err)
		}
	}
	for _, data := range []string{"9876543210", "012"} {
		at = at.Add(time.Second)
		place("key", data, at)
		for _, g := range []core.RemoteGet{{Length: -1}, {Offset: 1, Length: 2}, {Offset: 5, Length: 4}} {
			g.Version = o.Version
			_, _, err := b.Get(t.Context(), name, "key", g)
			refused("get of "+data, err)
		}
		_, err := b.Copy(t.Context(), name, "key", o.Version, name, "copy", core.RemotePut{})
		refused("copy", err)
		_, err = b.Put(t.Context(), name, "key", core.RemotePut{Size: 3, Open: opener("new"), If: core.RemoteCondition{Version: o.Version}})
		refused("put", err)
	}
	_, _, err = b.Get(t.Context(), name, "key", core.RemoteGet{Offset: 10, Length: 1, Version: o.Version})
	if !errors.Is(err, core.ErrRange) {
		t.Errorf("beyond the end: got %v", err)
	}
	_, err = b.Put(t.Context(), name, "gone", core.RemotePut{Size: 3, Open: opener("new"), If: core.RemoteCondition{Version: o.Version}})
	refused("put of what is gone", err)
	if o, err = b.Head(t.Context(), name, "key"); err != nil {
		t.Fatal(err)
	}
	p, err := b.Put(t.Context(), name, "key", core.RemotePut{Size: 3, Open: opener("new"), If: core.RemoteCondition{Version: o.Version}})
	if err != nil || strings.HasPrefix(p.ETag, dated) {
		t.Errorf("put: %+v, %v", p, err)
	}

	// AWS always has one.
	b.aws = true
	place("other", "x", at)
	if o, err := b.Head(t.Context(), name, "other"); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("without an ETag from AWS: %+v, %v", o, err)
	}
}
