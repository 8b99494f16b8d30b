package e2e_test

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // compares
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// module reads one of the guests that the repository keeps.
func module(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("../../../wasmetl/testdata/c/" + name + ".wasm")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// through reads an object through a transform.
func through(ctx context.Context, k *client.Client, bucket, key, transform string) (string, error) {
	r, err := k.Get(ctx, bucket, key, client.GetOptions{Query: map[string][]string{"transform": {transform}}})
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	return string(b), err
}

// TestTransforms registers transforms over HTTP and NATS, reads through them at every
// node, and transforms a bucket while the transform is removed and a node dies. The
// node that comes back has the others.
func TestTransforms(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, 2)
	ctx := t.Context()
	k := c.client("n1")
	made, err := k.PutTransform(ctx, api.Transform{Name: "upper", Type: "wasm", Code: module(t, "upper")})
	if err != nil || made.ABI != "shoal_v1" || made.Smoke == nil || made.Smoke.Outcome != "done" {
		t.Fatalf("register: %+v, %v", made, err)
	}
	src, dst := c.bucket("src", "mirror-2"), core.BucketName{Provider: core.Shoal, Name: "dst"}
	put := func(key string, data []byte) {
		t.Helper()
		if _, err := k.Upload(ctx, src.Name, key, bytes.NewReader(data), int64(len(data)), client.TransferOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put("modules/upperwasi.wasm", module(t, "upperwasi"))
	wasi := c.askETL(t, "init", api.Transform{Name: "wasi", FromObject: "shoal://src/modules/upperwasi.wasm"})
	if wasi["abi"] != "wasi" {
		t.Errorf("registered over NATS: %v", wasi)
	}
	if list, _ := c.askETL(t, "list", struct{}{})["transforms"].([]any); len(list) != 2 {
		t.Errorf("listed over NATS: %v", list)
	}
	put("a.txt", []byte("shout"))
	for _, node := range c.nodes {
		for _, name := range []string{"upper", "upper@" + made.Digest, "wasi"} {
			if got, err := through(ctx, c.client(node), src.Name, "a.txt", name); err != nil || got != "SHOUT" {
				t.Errorf("%s through %s: %q, %v", node, name, got, err)
			}
		}
	}
	for name, err := range map[string]error{
		"the cluster's own bucket": second(k.Bucket(ctx, core.BucketName{Provider: core.Shoal, Name: core.SystemBucketName})),
		"a job on it":              second(k.StartJob(ctx, api.JobSpec{Kind: "copy-bck", From: "shoal://" + core.SystemBucketName, To: dst.String()})),
		"an unknown transform":     second(through(ctx, k, src.Name, "a.txt", "nobody")),
	} {
		if !errors.Is(err, core.ErrNotFound) {
			t.Errorf("%s: got %v, want not found", name, err)
		}
	}
	if _, err := k.PutTransform(ctx, api.Transform{Name: "pod", Type: "spec", Code: []byte("kind: Pod")}); err == nil || !strings.Contains(err.Error(), "no Kubernetes is configured") {
		t.Errorf("a container: %v", err)
	}
	if _, err := k.PutTransform(ctx, api.Transform{Name: "bad", Code: []byte("no module")}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("what is no module: %v", err)
	}

	c.transformLarge(t, src)
	c.transformAndKill(t, src, dst)
	if err := k.DeleteTransform(ctx, "upper"); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("removed already: %v", err)
	}
	c.start("n3")
	poll(t, 30*time.Second, "n3 has the transforms again", func(ctx context.Context) error {
		x, err := k.Transform(ctx, "wasi")
		if err == nil && (x.Stats == nil || !strings.Contains(strings.Join(x.Stats.Nodes, " "), "n3")) {
			err = fmt.Errorf("ready on %+v", x.Stats)
		}
		return err
	})
	if got, err := through(ctx, c.client("n3"), src.Name, "a.txt", "wasi"); err != nil || got != "SHOUT" {
		t.Errorf("after the restart: %q, %v", got, err)
	}
	if _, err := k.TransformAction(ctx, "wasi", "stop"); err != nil {
		t.Fatal(err)
	}
	limited, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := through(limited, c.client("n2"), src.Name, "a.txt", "wasi"); err == nil {
		t.Error("a stopped transform runs")
	}
	c.askETL(t, "start", map[string]string{"name": "wasi"})
	if got, err := through(ctx, k, src.Name, "a.txt", "wasi"); err != nil || got != "SHOUT" {
		t.Errorf("started again: %q, %v", got, err)
	}
}

// TestTransformWithoutACluster runs a module as a node would.
func TestTransformWithoutACluster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sample := filepath.Join(dir, "a.txt")
	if err := os.WriteFile(sample, []byte("shout"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.wasm"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	const guests = "../../../wasmetl/testdata/c/"
	for _, tt := range []struct {
		args            []string
		out, errs, fail string
	}{
		{[]string{guests + "upper.wasm", "--in", sample}, "SHOUT", "", ""},
		{[]string{guests + "upperwasi.wasm", "--in", "-"}, "STDIN", "", ""},
		{[]string{guests + "grep.wasm", "--in", sample, "--arg", "word=x"}, "", "drops", ""},
		{[]string{guests + "explode.wasm", "--in", sample}, "", "the archive is cut off", "exit status 1"},
		{[]string{filepath.Join(dir, "bad.wasm"), "--in", sample}, "", "magic", "exit status 2"},
		{[]string{guests + "upper.wasm", "--in", sample, "--json"}, `"outputs":[{"size":5}]`, "", ""},
	} {
		var out, errs bytes.Buffer
		cmd := exec.CommandContext(t.Context(), os.Getenv(binVar), append([]string{"etl", "test"}, tt.args...)...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("stdin"), &out, &errs
		err := cmd.Run()
		if !strings.Contains(out.String(), tt.out) || !strings.Contains(errs.String(), tt.errs) || (err == nil) != (tt.fail == "") || err != nil && err.Error() != tt.fail {
			t.Errorf("%v: %v, %q, %q", tt.args, err, out.String(), errs.String())
		}
	}
}

func second[T any](_ T, err error) error { return err }

// askETL asks over NATS.
func (c *cluster) askETL(t *testing.T, verb string, request any) map[string]any {
	t.Helper()
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(strings.Join(s.BusURLs(), ","), nats.UserInfo(config.DevAccessKey, config.DevSecretKey))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	b, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	m, err := nc.Request("shoal.etl."+verb, b, 20*time.Second)
	if err != nil {
		t.Fatalf("shoal.etl.%s: %v", verb, err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(m.Data, &out); err != nil || m.Header.Get("Nats-Service-Error") != "" {
		t.Fatalf("shoal.etl.%s: %v %s: %.300s", verb, err, m.Header.Get("Nats-Service-Error"), m.Data)
	}
	return out
}

// transformLarge passes a large object through a transform, to a client and to a bucket:
// no node keeps more of it than a little.
func (c *cluster) transformLarge(t *testing.T, src core.BucketName) {
	t.Helper()
	const size, most = 192 << 20, 128 << 20
	ctx, k := t.Context(), c.client("n1")
	data := bytes.Repeat([]byte("a line of sixty-four bytes, which is repeated again and again.\n\n"), size/64)
	if _, err := k.Upload(ctx, src.Name, "large", bytes.NewReader(data), size, client.TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	want := md5.Sum(upperOf(data)) //nolint:gosec // compares
	before := c.peaks(t, true)
	r, err := k.Get(ctx, src.Name, "large", client.GetOptions{Query: map[string][]string{"transform": {"upper"}}})
	if err != nil {
		t.Fatal(err)
	}
	sum := md5.New() //nolint:gosec // compares
	n, err := io.Copy(sum, r)
	if err = errors.Join(err, r.Close()); err != nil || n != size || [md5.Size]byte(sum.Sum(nil)) != want {
		t.Errorf("%d bytes of %d came, %v", n, size, err)
	}
	j := c.job("etl", "bucket", "upper", src.String(), "shoal://large", "--prefix", "large", "--progress")
	if j.State != api.JobDone || j.Outputs.Bytes != size {
		t.Errorf("job: %+v", j)
	}
	after := c.peaks(t, false)
	t.Logf("peaks were %v before, %v after", before, after)
	for node, peak := range after {
		if grown := peak - before[node]; grown > most {
			t.Errorf("%s took %d MiB more for an object of %d MiB, want at most %d", node, grown>>20, size>>20, most>>20)
		}
	}
}

// peaks are how large nodes have been in memory, in bytes; with again from now on.
func (c *cluster) peaks(t *testing.T, again bool) map[string]int64 {
	t.Helper()
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int64{}
	for _, n := range s.Nodes {
		proc := fmt.Sprintf("/proc/%d/", n.Process.PID)
		if again {
			if err := os.WriteFile(proc+"clear_refs", []byte("5"), 0); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(proc + "status")
		if err != nil {
			t.Fatal(err)
		}
		var kib int64
		_, rest, _ := strings.Cut(string(b), "VmHWM:")
		if _, err := fmt.Sscan(rest, &kib); err != nil {
			t.Fatal(err)
		}
		out[n.Name] = kib << 10
	}
	return out
}

// transformAndKill transforms a bucket, removes the transform's name and kills n3 on
// the way. Every object arrives, once.
func (c *cluster) transformAndKill(t *testing.T, src, dst core.BucketName) {
	t.Helper()
	const objects = 240
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	k := c.client("n2")
	set := &dataSet{sizes: map[string]int{}, seeds: map[string]uint64{}}
	for i := range objects {
		name := fmt.Sprintf("in/%03d.txt", i)
		set.sizes[name], set.seeds[name] = 1000+i%10*40_000, uint64(i)
	}
	set.put(t, k, src)
	j, err := k.StartJob(ctx, api.JobSpec{
		Kind: "etl", From: src.String(), To: dst.String(), Prefix: "in/", Prepend: "out/", Ext: map[string]string{"txt": "up"},
		Args: map[string]string{"transform": "upper"}, RateLimit: api.RateLimit{Objects: 120}, ClientToken: "once",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.DeleteTransform(ctx, "upper"); err != nil {
		t.Error(err)
	}
	var once sync.Once
	killed := false
	j, err = k.WatchJob(ctx, j.ID, 50*time.Millisecond, func(j api.Job) {
		if j.Done.Objects >= objects/5 && !j.State.Ended() {
			once.Do(func() {
				killed = true
				c.kill("n3")
			})
		}
	})
	if err != nil || j.State != api.JobDone || !killed {
		t.Fatalf("job: %+v, %v; a node was killed: %t", j, err, killed)
	}
	if err := balance(j); err != nil || j.Done.Objects != objects || j.Outputs != j.Done {
		t.Errorf("books: %v: %+v", err, j)
	}
	if got := names(t, k, dst); len(got) != objects {
		t.Errorf("%d objects at the destination", len(got))
	}
	for i := 0; i < objects; i += 7 {
		name := fmt.Sprintf("in/%03d.txt", i)
		got, err := body(ctx, k, dst.Name, fmt.Sprintf("out/in/%03d.up", i))
		if err != nil || !bytes.Equal(got, upperOf(fill(set.seeds[name], set.sizes[name]))) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// upperOf is what the guest makes of bytes: it knows ASCII only.
func upperOf(b []byte) []byte {
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return b
}
