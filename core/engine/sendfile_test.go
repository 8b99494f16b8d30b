package engine_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// connection takes bytes as a client's connection does, files included.
type connection struct {
	bytes.Buffer
	files int64 // bytes that came as files
}

func (c *connection) Write(p []byte) (int, error) { return c.Buffer.Write(p) }

func (c *connection) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.Buffer.ReadFrom(r)
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			c.files += n
		}
	}
	return n, err
}

// fetch gets an object as a gateway does.
func fetch(t *testing.T, n *engine.Node, b core.Bucket, key string, opt core.GetOptions) (*connection, error) {
	t.Helper()
	obj, err := n.Objects().Get(t.Context(), b, key, opt)
	if err != nil {
		return nil, err
	}
	c := &connection{}
	_, err = obj.Body.(io.WriterTo).WriteTo(c)
	return c, errors.Join(err, obj.Body.Close())
}

// shardFiles lists the files of all shards on the nodes' disks.
func (tc *testCluster) shardFiles(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, dir := range tc.dirs {
		names, err := filepath.Glob(filepath.Join(dir, "data", "[0-9a-f][0-9a-f]", "*"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names...)
	}
	return all
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// TestSendFile reads buckets with and without sendfile=on: what may be sent
// from a file is, and nothing else.
func TestSendFile(t *testing.T) {
	tc := startCluster(t, 1, 4)
	n := tc.nodes[0]
	data := randomBytes(3<<20 + 12345)
	for _, c := range []struct {
		scheme   string
		on, asks bool
		files    bool
	}{
		{"none", true, true, true},
		{"none", true, false, false},
		{"none", false, true, false},
		{"mirror-2", true, true, true},
		{"ec-2+1", true, true, false},
	} {
		scheme, err := core.ParseScheme(c.scheme)
		if err != nil {
			t.Fatal(err)
		}
		p := n.PolicyFor(&scheme)
		p.Domain, p.Sendfile = core.DomainDisk, c.on
		name := "b-" + core.NewRequestID().String()[:8]
		b, err := n.Objects().CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: name}, &p, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Objects().Put(t.Context(), b, "k", bytes.NewReader(data), core.PutOptions{Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		for _, r := range []*core.ByteRange{nil, {Start: 100, End: 2<<20 + 7}, {Start: -1, End: 5}} {
			before := n.Status().SentFiles
			got, err := fetch(t, n, b, "k", core.GetOptions{Range: r, SendFile: c.asks})
			if err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			want := data
			if r != nil {
				start, length, _ := r.Resolve(int64(len(data)))
				want = data[start : start+length]
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%+v, range %v: got %d bytes that differ from the %d written", c, r, got.Len(), len(want))
			}
			files := int64(0)
			if c.files {
				files = int64(len(want))
			}
			if counted := n.Status().SentFiles - before; got.files != files || counted != files {
				t.Errorf("%+v, range %v: got %d bytes from files and %d counted, want %d", c, r, got.files, counted, files)
			}
		}
	}
}

// TestDamageIsNotServed flips a bit in each shard file, and removes files.
func TestDamageIsNotServed(t *testing.T) {
	tc := startCluster(t, 1, 3)
	n := tc.nodes[0]
	data := randomBytes(1<<20 + 777)
	create := func(scheme string, sendfile bool) core.Bucket {
		s, err := core.ParseScheme(scheme)
		if err != nil {
			t.Fatal(err)
		}
		p := n.PolicyFor(&s)
		p.Domain, p.Sendfile = core.DomainDisk, sendfile
		b, err := n.Objects().CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "b-" + core.NewRequestID().String()[:8]}, &p, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Objects().Put(t.Context(), b, "k", bytes.NewReader(data), core.PutOptions{Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		for range 3 { // what is read again and again is served in other ways
			if got, err := fetch(t, n, b, "k", core.GetOptions{SendFile: true}); err != nil || !bytes.Equal(got.Bytes(), data) {
				t.Fatalf("%s: %v", scheme, err)
			}
		}
		return b
	}
	fresh := func(do func()) []string {
		old := map[string]bool{}
		for _, f := range tc.shardFiles(t) {
			old[f] = true
		}
		do()
		var out []string
		for _, f := range tc.shardFiles(t) {
			if !old[f] {
				out = append(out, f)
			}
		}
		return out
	}
	flip := func(name string, off int64) {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		_, err = f.ReadAt(b[:], off)
		b[0] ^= 4
		_, err2 := f.WriteAt(b[:], off)
		if err := errors.Join(err, err2, f.Close()); err != nil {
			t.Fatal(err)
		}
	}

	var b core.Bucket
	files := fresh(func() { b = create("none", false) })
	flip(files[0], 700_000)
	for range 2 {
		got, err := fetch(t, n, b, "k", core.GetOptions{SendFile: true})
		if !errors.Is(err, core.ErrCorrupt) || !bytes.HasPrefix(data, got.Bytes()) {
			t.Errorf("none: got %v, want ErrCorrupt after bytes that are as written", err)
		}
	}
	files = fresh(func() { b = create("mirror-2", false) })
	flip(files[0], 0)
	flip(files[1], 1<<20)
	for range 4 {
		if got, err := fetch(t, n, b, "k", core.GetOptions{SendFile: true}); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("mirror-2, both damaged in different places: got %v or other bytes", err)
		}
	}
	files = fresh(func() { b = create("none", true) })
	flip(files[0], 700_000)
	if obj, err := n.Objects().Get(t.Context(), b, "k", core.GetOptions{SendFile: true}); err != nil {
		t.Error(err)
	} else if _, err := io.ReadAll(obj.Body); !errors.Is(err, core.ErrCorrupt) {
		t.Errorf("sendfile=on, read by one who takes no files: got %v, want ErrCorrupt", err)
	}
	files = fresh(func() { b = create("mirror-2", true) })
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if got, err := fetch(t, n, b, "k", core.GetOptions{SendFile: true}); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("sendfile=on, one file gone: got %v or other bytes", err)
		}
	}
}
