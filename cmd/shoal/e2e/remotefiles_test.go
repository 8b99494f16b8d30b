package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/api"
)

// serverFiles names files and directories of the servers' by their paths.
func (c *clouds) serverFiles() {
	for name, text := range map[string]string{"set/a.txt": "first", "set/sub/b.txt": "second", "settings": "third"} {
		name = filepath.Join(c.files, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			c.t.Fatal(err)
		}
		writeFile(c.t, name, text)
	}
	path := "file://" + c.files
	if out := c.must("ls", path+"/set", "--no-headers"); out != "set/a.txt\nset/sub/b.txt\n" {
		c.t.Errorf("ls of a directory: %q", out)
	}
	c.wantCat([]byte("third"), path+"/settings")
	c.has(c.must("cp", path+"/set", "gs://dst", "--all"), "copied 2 objects")
	c.wantCat([]byte("second"), "gs://dst/set/sub/b.txt")
	c.has(c.must("cp", "gs://dst", path+"/out", "--prefix", "set/"), "copied 2 objects")
	if got := readFile(c.t, filepath.Join(c.files, "out/set/a.txt")); got != "first" {
		c.t.Errorf("the file has %q", got)
	}
	c.has(c.code(2, "ls", "file:///etc"), "backends.file.roots")
	c.has(c.code(2, "cp", "file://"+filepath.Dir(c.files), "gs://dst", "--all"), "backends.file.roots")
	c.has(c.code(2, "cat", path+"/set/../../x"), "")
}

// lru evicts what was not used of late, of which there is nothing unless the machine's
// own file system is rather full.
func (c *clouds) lru() {
	c.has(c.must("bucket", "show", "gs://dst"), "lru")
	j := c.job("start", "lru", "gs://dst", "--dry-run", "--progress")
	if j.State != api.JobDone || j.Planned == nil {
		c.t.Errorf("got %+v", j)
	}
	c.has(c.code(2, "start", "lru", "shoal://copy"), "only copy")
}

// natsBuckets asks about buckets over NATS.
func (c *clouds) natsBuckets() {
	s, err := c.State()
	if err != nil {
		c.t.Fatal(err)
	}
	nc, err := nats.Connect(strings.Join(s.BusURLs(), ","), nats.UserInfo(config.DevAccessKey, config.DevSecretKey))
	if err != nil {
		c.t.Fatal(err)
	}
	defer nc.Close()
	ask[api.Bucket](c.t, nc, "create", `{"bucket":"shoal://over-nats","props":{"scheme":"mirror-3"},"alias":"bus"}`, func(b api.Bucket) bool {
		return b.URI == "shoal://over-nats" && b.Alias == "bus" && b.Props.Scheme.String() == "mirror-3"
	})
	ask[api.Bucket](c.t, nc, "set", `{"bucket":"shoal://over-nats","props":{"lru":true}}`, func(b api.Bucket) bool { return b.Props.LRU })
	ask[api.Bucket](c.t, nc, "show", `{"bucket":"over-nats"}`, func(b api.Bucket) bool { return b.Alias == "bus" && b.Props.LRU })
	ask[api.Buckets](c.t, nc, "list", `{"provider":"shoal"}`, func(l api.Buckets) bool {
		for _, b := range l.Buckets {
			if b.URI == "shoal://over-nats" {
				return true
			}
		}
		return false
	})
	ask[api.Buckets](c.t, nc, "list", `{"provider":"s3","all":true}`, func(l api.Buckets) bool { return len(l.Buckets) >= 5 && len(l.Unlisted) > 0 })
	ask[api.Summary](c.t, nc, "summary", `{"bucket":"s3://src","all":true}`, func(s api.Summary) bool {
		return s.Accessible && s.Remote != nil && s.Remote.Objects >= 130
	})
	ask[struct{}](c.t, nc, "remove", `{"bucket":"shoal://over-nats"}`, func(struct{}) bool { return true })
	for subject, req := range map[string][2]string{
		"show":    {`{"bucket":"shoal://over-nats"}`, "404"},
		"remove":  {`{"bucket":"shoal://over-nats/key"}`, "400"},
		"create":  {`{}`, "400"},
		"summary": {`{"bucket":"s3://src","presence":"somewhere"}`, "400"},
	} {
		poll(c.t, 10*time.Second, subject+" "+req[0], func(context.Context) error {
			m, err := nc.Request("shoal.bucket."+subject, []byte(req[0]), 30*time.Second)
			if err == nil && m.Header.Get("Nats-Service-Error-Code") != req[1] {
				err = fmt.Errorf("got %v, want %s", m, req[1])
			}
			return err
		})
	}
}

// ask makes a request about buckets and checks the answer. Any node answers: what was
// changed by another shows there a moment later.
func ask[T any](t *testing.T, nc *nats.Conn, subject, req string, ok func(T) bool) {
	t.Helper()
	once := func(context.Context) error {
		m, err := nc.Request("shoal.bucket."+subject, []byte(req), 30*time.Second)
		if err != nil {
			return err
		}
		var out T
		if err := json.Unmarshal(m.Data, &out); err != nil {
			return err
		}
		if m.Header.Get("Nats-Service-Error") != "" || !ok(out) {
			return fmt.Errorf("got %v %s", m.Header, m.Data)
		}
		return nil
	}
	switch subject {
	case "create", "set", "remove":
		if err := once(t.Context()); err != nil {
			t.Errorf("%s %s: %v", subject, req, err)
		}
	default:
		poll(t, 10*time.Second, subject+" "+req, once)
	}
}
