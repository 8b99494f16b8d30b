package s3gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memobjects"
)

// fromFile is an object layer whose bodies are files, of which the gateway says
// that they may be sent.
type fromFile struct {
	core.Objects
	name string
	cut  int64 // by how much the file is too short
}

func (f *fromFile) Get(ctx context.Context, b core.Bucket, key string, o core.GetOptions) (*core.Object, error) {
	obj, err := f.Objects.Get(ctx, b, key, o)
	if err != nil || !o.SendFile {
		return obj, err
	}
	file, err := os.Open(f.name)
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(obj.Start+f.cut, io.SeekStart); err != nil {
		return nil, err
	}
	obj.Body = fileBody{file, obj.Length}
	return obj, nil
}

type fileBody struct {
	*os.File
	n int64
}

func (b fileBody) WriteTo(w io.Writer) (int64, error) {
	return w.(io.ReaderFrom).ReadFrom(&io.LimitedReader{R: b.File, N: b.n})
}

// fileListener counts the files that connections are asked to send.
type fileListener struct {
	net.Listener
	files *atomic.Int64
}

func (l fileListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return fileConn{c.(*net.TCPConn), l.files}, nil
}

type fileConn struct {
	*net.TCPConn
	files *atomic.Int64
}

func (c fileConn) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			c.files.Add(l.N)
		}
	}
	return c.TCPConn.ReadFrom(r)
}

// TestSendFile wants files to reach the connection whole, where the kernel sends
// them, and downloads of files that are too short to break off.
func TestSendFile(t *testing.T) {
	data := strings.Repeat("0123456789abcdef", 20_000)
	objects := &fromFile{Objects: memobjects.New(wall{}), name: filepath.Join(t.TempDir(), "f")}
	if err := os.WriteFile(objects.name, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := New(Options{Objects: objects, Lookup: lookup, Clock: wall{}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(g)
	var files atomic.Int64
	s.Listener = fileListener{s.Listener, &files}
	s.Start()
	defer s.Close()
	e := &endpoint{url: s.URL, objects: objects, http: s.Client(), close: s.Close}
	b := e.bucket(t, "data")
	if r := e.raw(t, "PUT", "/"+b+"/k", nil, data); r.status != http.StatusOK {
		t.Fatalf("put: got %d", r.status)
	}
	for _, c := range []struct{ rng, want string }{{"", data}, {"bytes=70000-199999", data[70_000:200_000]}, {"bytes=-3", data[len(data)-3:]}} {
		files.Store(0)
		h := http.Header{}
		if c.rng != "" {
			h.Set("Range", c.rng)
		}
		if r := e.raw(t, "GET", "/"+b+"/k", h, ""); r.body != c.want {
			t.Errorf("range %q: got %d and %d bytes, want %d", c.rng, r.status, len(r.body), len(c.want))
		}
		if files.Load() != int64(len(c.want)) {
			t.Errorf("range %q: the connection got %d bytes as a file, want %d", c.rng, files.Load(), len(c.want))
		}
	}
	objects.cut = 10
	resp, err := e.http.Do(e.request(t, "GET", "/"+b+"/k", nil, "", "UNSIGNED-PAYLOAD"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if got, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a file that is too short: got %d bytes and no error", len(got))
	}
}

// TestSendFileNotOverTLS wants no files where they would have to be read anyway.
func TestSendFileNotOverTLS(t *testing.T) {
	asked := &fromFile{name: "/nowhere"}
	e := serve(t, func(o core.Objects) core.Objects { asked.Objects = o; return asked }, true)
	b := e.bucket(t, "data")
	e.raw(t, "PUT", "/"+b+"/k", nil, "text")
	if r := e.raw(t, "GET", "/"+b+"/k", nil, ""); r.body != "text" {
		t.Errorf("got %d %q", r.status, r.body)
	}
}
