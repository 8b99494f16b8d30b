package filebackend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/backendtest"
)

func TestBackend(t *testing.T) {
	backendtest.Run(t, backendtest.Options{
		New: func(t *testing.T) (core.Backend, string) {
			b, err := Open(Options{Roots: map[string]string{"data": t.TempDir(), "other": t.TempDir()}})
			if err != nil {
				t.Fatal(err)
			}
			return b, "data"
		},
	})
}

// rig is a backend with a bucket "data" at dir, and a file beside it.
type rig struct {
	*testing.T
	b      *Backend
	dir    string
	secret string
}

func newRig(t *testing.T) rig {
	t.Helper()
	top := t.TempDir()
	r := rig{T: t, dir: filepath.Join(top, "data"), secret: filepath.Join(top, "secret")}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.file(r.secret, "secret")
	b, err := Open(Options{Roots: map[string]string{"data": r.dir}})
	if err != nil {
		t.Fatal(err)
	}
	r.b = b
	return r
}

func (r rig) file(path, data string) {
	r.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(data), 0o644)); err != nil {
		r.Fatal(err)
	}
}

func opener(data string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil }
}

func (r rig) put(key, data string, o core.RemotePut) (core.RemoteObject, error) {
	r.Helper()
	o.Size, o.Open = int64(len(data)), opener(data)
	return r.b.Put(r.Context(), "data", key, o)
}

func (r rig) get(key string) (string, error) {
	r.Helper()
	_, body, err := r.b.Get(r.Context(), "data", key, core.RemoteGet{Length: -1})
	if err != nil {
		return "", err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	return string(data), err
}

func (r rig) keys() []string {
	r.Helper()
	var keys []string
	for o := (core.RemoteListOptions{}); ; {
		l, err := r.b.List(r.Context(), "data", o)
		if err != nil {
			r.Fatal(err)
		}
		for _, obj := range l.Objects {
			keys = append(keys, obj.Key)
		}
		if !l.More {
			return keys
		}
		o.After = l.Next
	}
}

// names are all files below the bucket's directory.
func (r rig) names() (names []string) {
	r.Helper()
	err := filepath.WalkDir(r.dir, func(path string, _ fs.DirEntry, err error) error {
		if path != r.dir {
			names = append(names, strings.TrimPrefix(path, r.dir+"/"))
		}
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	return names
}

// Links do not lead anywhere, neither outside nor inside.
func TestLinks(t *testing.T) {
	r := newRig(t)
	r.file(filepath.Join(r.dir, "in/file"), "inside")
	top := filepath.Dir(r.dir)
	for link, to := range map[string]string{
		"out": r.secret, "up": "..", "abs": top, "rel": "../secret", "in/link": "file", "dir": "in", "loop": "loop", "none": "nothing",
	} {
		if err := os.Symlink(to, filepath.Join(r.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	for _, key := range []string{"out", "up", "up/secret", "abs/secret", "rel", "in/link", "dir/file", "dir", "loop", "loop/x", "none", "in"} {
		if data, err := r.get(key); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("get %s: %q, %v", key, data, err)
		}
		if _, err := r.b.Head(ctx, "data", key); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("head %s: %v", key, err)
		}
		if _, err := r.b.Copy(ctx, "data", key, "", "data", "copy", core.RemotePut{}); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("copy of %s: %v", key, err)
		}
		if err := r.b.Delete(ctx, "data", key, core.RemoteCondition{}); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
		if _, err := r.put(key, "harm", core.RemotePut{}); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("put %s: %v", key, err)
		}
	}
	for _, key := range []string{"../secret", "up/../secret", "/etc/passwd", "in/../../secret", "./in/file"} {
		if _, err := r.get(key); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("get %s: %v", key, err)
		}
		if _, err := r.put(key, "harm", core.RemotePut{}); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("put %s: %v", key, err)
		}
	}
	if got := r.keys(); !slices.Equal(got, []string{"in/file"}) {
		t.Errorf("list: %q", got)
	}
	for _, prefix := range []string{"up/", "abs/", "dir/", "../", "loop/", "in//", "/"} {
		if l, err := r.b.List(ctx, "data", core.RemoteListOptions{Prefix: prefix}); err != nil || len(l.Objects) > 0 {
			t.Errorf("list of %s: %+v, %v", prefix, l, err)
		}
	}
	if b, err := os.ReadFile(r.secret); err != nil || string(b) != "secret" {
		t.Errorf("the file outside is %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(r.dir, "in/file")); err != nil || string(b) != "inside" {
		t.Errorf("the file inside is %q, %v", b, err)
	}
}

// A pipe is no object, and nobody waits for its writer.
func TestPipe(t *testing.T) {
	r := newRig(t)
	if err := syscall.Mkfifo(filepath.Join(r.dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := r.get("pipe"); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("get: %v", err)
	}
	if got := r.keys(); len(got) > 0 {
		t.Errorf("list: %q", got)
	}
}

// Others write as well.
func TestOthersWrite(t *testing.T) {
	r := newRig(t)
	sum := []byte("\x90\x01\x50\x98\x3c\xd2\x4f\xb0\xd6\x96\x3f\x7d\x28\xe1\x7f\x72") // MD5 of "abc"
	first, err := r.put("key", "abc", core.RemotePut{MD5: sum, Headers: map[string]string{"Content-Type": "text/x"}})
	if err != nil || !bytes.Equal(first.MD5, sum) {
		t.Fatalf("%+v, %v", first, err)
	}
	path := filepath.Join(r.dir, "key")
	if err := os.WriteFile(path, []byte("xyz"), 0o644); err != nil { // into the same file
		t.Fatal(err)
	}
	o, err := r.b.Head(t.Context(), "data", "key")
	if err != nil || o.Version == first.Version || o.ETag == first.ETag || o.MD5 != nil || o.Headers["Content-Type"] != "text/x" {
		t.Errorf("after somebody wrote: %+v, %v", o, err)
	}
	_, body, err := r.b.Get(t.Context(), "data", "key", core.RemoteGet{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("uvw"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 2)); err != nil { // whatever the clock's grain
		t.Fatal(err)
	}
	if data, err := io.ReadAll(body); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("written while it was read: got %q, %v", data, err)
	}
	_ = body.Close()
	_, body, err = r.b.Get(t.Context(), "data", "key", core.RemoteGet{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(body); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("cut while it was read: got %q, %v", data, err)
	}
	_ = body.Close()
	_, body, err = r.b.Get(t.Context(), "data", "key", core.RemoteGet{Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.put("key", "replaced", core.RemotePut{}); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(body); err != nil || string(data) != "u" {
		t.Errorf("replaced while it was read: got %q, %v; want what was opened", data, err)
	}
	_ = body.Close()
}

// Versions differ even where the clock stands still, inodes are used again, and sizes are
// the same.
func TestVersionsDiffer(t *testing.T) {
	r := newRig(t)
	seen := map[core.RemoteVersion]bool{}
	for i := range 200 {
		o, err := r.put("key", fmt.Sprintf("%03d", i), core.RemotePut{})
		if err != nil {
			t.Fatal(err)
		}
		if seen[o.Version] {
			t.Fatalf("write %d has the version of an earlier one: %s", i, o.Version)
		}
		seen[o.Version] = true
	}
	// The time is the backend's: that of the file system may stand still.
	at := time.Unix(1_700_000_000, 123_456_789)
	r.b.o.Now = func() time.Time { return at }
	if o, err := r.put("key", "x", core.RemotePut{}); err != nil || !o.Modified.Equal(at) {
		t.Errorf("written at %s: got %s, %v", at, o.Modified, err)
	}
}

// What a write leaves behind when it fails, and what a dead process left.
func TestTemporaryFiles(t *testing.T) {
	r := newRig(t)
	broken := errors.New("broken")
	_, err := r.b.Put(t.Context(), "data", "a/b/c", core.RemotePut{Size: 10, Open: func(context.Context) (io.ReadCloser, error) {
		if n := r.names(); len(n) != 3 || !strings.HasPrefix(n[2], "a/b/"+tempPrefix) {
			t.Errorf("while it is written: %q", n)
		}
		if got := r.keys(); len(got) > 0 {
			t.Errorf("listed while it is written: %q", got)
		}
		return nil, broken
	}})
	if !errors.Is(err, broken) {
		t.Errorf("put: %v", err)
	}
	if n := r.names(); len(n) > 0 {
		t.Errorf("a failed write left %q", n)
	}
	stale, fresh := filepath.Join(r.dir, tempPrefix+"stale"), filepath.Join(r.dir, tempPrefix+"fresh")
	r.file(stale, "x")
	r.file(fresh, "x")
	if err := os.Chtimes(stale, time.Time{}, time.Now().Add(-25*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := r.keys(); len(got) > 0 {
		t.Errorf("list: %q", got)
	}
	if n := r.names(); !slices.Equal(n, []string{tempPrefix + "fresh"}) {
		t.Errorf("left: %q", n)
	}
	if _, err := r.get(tempPrefix + "fresh"); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("get of a temporary file: %v", err)
	}
}

// Directories that are empty go with the last object, others stay.
func TestEmptyDirectories(t *testing.T) {
	r := newRig(t)
	for _, key := range []string{"a/b/c/1", "a/2"} {
		if _, err := r.put(key, "x", core.RemotePut{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.b.Delete(t.Context(), "data", "a/b/c/1", core.RemoteCondition{}); err != nil {
		t.Fatal(err)
	}
	if n := r.names(); !slices.Equal(n, []string{"a", "a/2"}) {
		t.Errorf("left: %q", n)
	}
	if _, err := r.put("a/b", "now a file", core.RemotePut{}); err != nil {
		t.Errorf("an object where a directory was: %v", err)
	}
}

// A prefix is listed if there is a key below it, however deep.
func TestPrefixes(t *testing.T) {
	r := newRig(t)
	for _, dir := range []string{"empty", "deep/er/est", "only-temp", "link"} {
		if err := os.MkdirAll(filepath.Join(r.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.file(filepath.Join(r.dir, "only-temp", tempPrefix+"x"), "x")
	r.file(filepath.Join(r.dir, "full/a/b/c"), "x")
	r.file(filepath.Join(r.dir, "many/000/x"), "x")
	for i := range 300 {
		r.file(filepath.Join(r.dir, fmt.Sprintf("many/%03d/%stemp", i, tempPrefix)), "x")
	}
	if err := os.Symlink("../full", filepath.Join(r.dir, "link/full")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    core.RemoteListOptions
		want []string
	}{
		{core.RemoteListOptions{}, []string{"full/", "many/"}},
		{core.RemoteListOptions{After: "full/a"}, []string{"full/", "many/"}},
		{core.RemoteListOptions{After: "full/a/b/c"}, []string{"many/"}},
		{core.RemoteListOptions{Until: "full/a/b/c"}, nil},
		{core.RemoteListOptions{Until: "full/a/b/d"}, []string{"full/"}},
		{core.RemoteListOptions{Prefix: "full/"}, []string{"full/a/"}},
		{core.RemoteListOptions{Prefix: "deep/"}, nil},
		{core.RemoteListOptions{Prefix: "f"}, []string{"full/"}},
	} {
		c.o.Delimiter = "/"
		l, err := r.b.List(t.Context(), "data", c.o)
		if err != nil || len(l.Objects) > 0 || !slices.Equal(l.Prefixes, c.want) || l.More {
			t.Errorf("%+v: got %+v, %v; want %q", c.o, l, err, c.want)
		}
	}
}

func TestRoots(t *testing.T) {
	if _, err := Open(Options{Roots: map[string]string{"x": "relative"}}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("a relative path: %v", err)
	}
	r := newRig(t)
	if err := os.Rename(r.dir, r.dir+".away"); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	_, getErr := r.get("key")
	_, headErr := r.b.Head(ctx, "data", "key")
	_, listErr := r.b.List(ctx, "data", core.RemoteListOptions{})
	_, putErr := r.put("key", "x", core.RemotePut{})
	for what, err := range map[string]error{
		"get": getErr, "head": headErr, "list": listErr, "put": putErr, "bucket": r.b.HeadBucket(ctx, "data"),
		"delete": r.b.Delete(ctx, "data", "key", core.RemoteCondition{}),
	} {
		if !errors.Is(err, core.ErrUnavailable) {
			t.Errorf("%s without the directory: %v, want that it is not available", what, err)
		}
	}
}

// Where metadata cannot be kept the log says so, once.
func TestNoAttributes(t *testing.T) {
	r := newRig(t)
	var log bytes.Buffer
	r.b.o.Log = slog.New(slog.NewTextHandler(&log, nil))
	r.b.keep = func(*os.File, attributes) (bool, error) { return false, nil }
	for range 2 {
		o, err := r.put("key", "abc", core.RemotePut{Meta: map[string]string{"a": "b"}})
		if err != nil || o.MD5 != nil {
			t.Errorf("%+v, %v", o, err)
		}
	}
	if n := strings.Count(log.String(), "metadata of objects is lost"); n != 1 {
		t.Errorf("the log says it %d times: %s", n, log.String())
	}
	if _, err := newRig(t).put("key", "abc", core.RemotePut{Meta: map[string]string{"a": strings.Repeat("x", 100_000)}}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("more metadata than the file system keeps: %v", err)
	}
}

// A large directory is not read for each page, and every change is seen.
func TestLargeDirectory(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(r.dir, "d")
	var want []string
	for i := range leastCached + 500 {
		key := fmt.Sprintf("d/%05d", i)
		want = append(want, key)
		r.file(filepath.Join(r.dir, key), "")
	}
	old := func() {
		if err := os.Chtimes(dir, time.Time{}, time.Now().Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.keys(); !slices.Equal(got, want) {
		t.Fatalf("list: %d keys, want %d", len(got), len(want))
	}
	if r.b.dirs.names != 0 {
		t.Error("a directory that changed just now is remembered")
	}
	old()
	for range 2 {
		if got := r.keys(); !slices.Equal(got, want) {
			t.Fatalf("list: %d keys, want %d", len(got), len(want))
		}
	}
	if r.b.dirs.names != len(want) {
		t.Errorf("%d names are remembered, want %d", r.b.dirs.names, len(want))
	}
	if err := r.b.Delete(t.Context(), "data", want[7], core.RemoteCondition{}); err != nil {
		t.Fatal(err)
	}
	want = append(slices.Delete(want, 7, 8), "d/new")
	r.file(filepath.Join(r.dir, "d/new"), "")
	if got := r.keys(); !slices.Equal(got, want) {
		t.Errorf("after changes: %d keys, want %d", len(got), len(want))
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newDirCache()
	for i := range 10 {
		c.put(dirKey{"b", fmt.Sprint(i)}, cachedDir{"v", make([]entry, cachedNames/4)})
		if c.names > cachedNames {
			t.Fatalf("%d names", c.names)
		}
	}
	if len(c.dirs) != 4 || len(c.order) != 4 {
		t.Errorf("%d directories, %d in order", len(c.dirs), len(c.order))
	}
	if _, ok := c.get(dirKey{"b", "9"}, "v"); !ok {
		t.Error("the last one is gone")
	}
	if _, ok := c.get(dirKey{"b", "9"}, "w"); ok {
		t.Error("another version is there")
	}
}
