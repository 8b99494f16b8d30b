package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/apitest"
	"github.com/shoalstore/shoal/plugins/api/client"
)

func connect(t testing.TB, f *apitest.Cluster, change ...func(*client.Options)) *client.Client {
	t.Helper()
	o := client.Options{
		Endpoints: f.URLs(), AccessKey: apitest.AccessKey, SecretKey: apitest.SecretKey,
		Silence: 5 * time.Second, RetryFor: 20 * time.Second, PartSize: core.MinPart,
	}
	for _, c := range change {
		c(&o)
	}
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// impatient makes frozen endpoints and dead clusters quick to notice.
func impatient(o *client.Options) { o.Silence, o.RetryFor = 300*time.Millisecond, time.Second }

func bucket(t testing.TB, c *client.Client) core.BucketName {
	t.Helper()
	b := core.BucketName{Provider: core.Shoal, Name: "data"}
	if _, err := c.CreateBucket(t.Context(), b, api.CreateBucket{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b)
	return b
}

func put(t testing.TB, c *client.Client, key string, data []byte) client.ObjectInfo {
	t.Helper()
	info, err := c.Upload(t.Context(), "data", key, bytes.NewReader(data), int64(len(data)), client.TransferOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func get(t testing.TB, c *client.Client, key string, o client.GetOptions) ([]byte, error) {
	t.Helper()
	r, err := c.Get(t.Context(), "data", key, o)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(r)
}

// file is an io.WriterAt in memory.
type file struct {
	mu sync.Mutex
	b  []byte
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if end := int(off) + len(p); end > len(f.b) {
		f.b = append(f.b, make([]byte, end-len(f.b))...)
	}
	return copy(f.b[off:], p), nil
}

func TestObjectsOfAllSizesAndNames(t *testing.T) {
	f := apitest.New(t, 1)
	c := connect(t, f)
	bucket(t, c)
	for i, size := range []int{0, 1, 1000, 128 << 10, 5 << 20, 1 << 20, 10 << 20, 10<<20 + 1} {
		key := []string{"a", "dir/b c", "ü/日本", "a//b", "a/../b", "%41+?&=#", "nul\x00\x01\x7f", "-/x~!*'()"}[i]
		data := random(size, uint64(i))
		info := put(t, c, key, data)
		if info.Size != int64(size) || info.ETag == "" {
			t.Errorf("put %q: got %+v", key, info)
		}
		head, err := c.Head(t.Context(), "data", key)
		if err != nil || head.Size != int64(size) || head.ETag != info.ETag || head.CRC64NVME == "" {
			t.Errorf("head %q: got %+v, %v, want size %d, ETag %s and a checksum", key, head, err, size, info.ETag)
		}
		if got, err := get(t, c, key, client.GetOptions{}); err != nil || !bytes.Equal(got, data) {
			t.Errorf("get %q: got %d bytes, %v, want %d", key, len(got), err, size)
		}
		var w file
		if _, err := c.Download(t.Context(), "data", key, &w, client.TransferOptions{}); err != nil || !bytes.Equal(w.b, data) {
			t.Errorf("download %q: got %d bytes, %v, want %d", key, len(w.b), err, size)
		}
	}
}

func TestUploadOfUnknownSize(t *testing.T) {
	f := apitest.New(t, 1)
	c := connect(t, f)
	bucket(t, c)
	for _, size := range []int{0, 10, 12 << 20} {
		data := random(size, 1)
		info, err := c.Upload(t.Context(), "data", "k", io.MultiReader(bytes.NewReader(data)), -1, client.TransferOptions{ContentType: "text/x", Meta: map[string]string{"who": "me"}})
		if err != nil || info.Size != int64(size) {
			t.Fatalf("%d bytes: got %+v, %v", size, info, err)
		}
		head, err := c.Head(t.Context(), "data", "k")
		if err != nil || head.ContentType != "text/x" || head.Meta["who"] != "me" {
			t.Errorf("%d bytes: got %+v, %v", size, head, err)
		}
	}
}

func TestUploadOfWrongSizeStoresNothing(t *testing.T) {
	f := apitest.New(t, 1)
	c := connect(t, f)
	bucket(t, c)
	for _, tt := range []struct{ has, says int }{{10, 11}, {10, 9}, {12 << 20, 13 << 20}, {12 << 20, 11 << 20}} {
		_, err := c.Upload(t.Context(), "data", "k", bytes.NewReader(random(tt.has, 1)), int64(tt.says), client.TransferOptions{})
		if err == nil || !strings.Contains(err.Error(), "did it change?") {
			t.Errorf("%d bytes said to be %d: got %v", tt.has, tt.says, err)
		}
		if _, err := c.Head(t.Context(), "data", "k"); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("%d bytes said to be %d: stored (%v)", tt.has, tt.says, err)
		}
	}
}

func TestRanges(t *testing.T) {
	f := apitest.New(t, 1)
	c := connect(t, f)
	bucket(t, c)
	data := random(1000, 1)
	info := put(t, c, "k", data)
	for _, tt := range []struct{ off, length, want int64 }{{0, 0, 1000}, {0, 10, 10}, {990, 0, 10}, {500, 1000, 500}, {999, 1, 1}} {
		got, err := get(t, c, "k", client.GetOptions{Offset: tt.off, Length: tt.length})
		if err != nil || !bytes.Equal(got, data[tt.off:tt.off+tt.want]) {
			t.Errorf("from %d, %d bytes: got %d, %v", tt.off, tt.length, len(got), err)
		}
	}
	if _, err := get(t, c, "k", client.GetOptions{ETag: "other"}); !errors.Is(err, client.ErrChanged) {
		t.Errorf("another ETag: got %v", err)
	}
	if _, err := get(t, c, "k", client.GetOptions{ETag: info.ETag}); err != nil {
		t.Errorf("the ETag: got %v", err)
	}
}

func TestErrorsAreCores(t *testing.T) {
	f := apitest.New(t, 1)
	c := connect(t, f)
	b := bucket(t, c)
	ctx := t.Context()
	_, err := c.CreateBucket(ctx, b, api.CreateBucket{})
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	check("create again", err, core.ErrExists)
	_, err = c.Head(ctx, "data", "none")
	check("head", err, core.ErrNotFound)
	_, err = c.Get(ctx, "data", "none", client.GetOptions{})
	check("get", err, core.ErrNotFound)
	_, err = c.Get(ctx, "nobucket", "none", client.GetOptions{})
	check("get from no bucket", err, core.ErrNoSuchBucket)
	put(t, c, "k", nil)
	check("remove a full bucket", c.DeleteBucket(ctx, b), core.ErrNotEmpty)
	check("delete of another version", c.Delete(ctx, "data", "k", "other"), core.ErrPrecondition)
	if err := c.Delete(ctx, "data", "none", ""); err != nil {
		t.Errorf("delete of nothing: got %v", err)
	}
	_, err = c.Job(ctx, "none")
	check("job", err, core.ErrNotFound)
	_, err = c.StartJob(ctx, api.JobSpec{Kind: "dsort"})
	check("job of later versions", err, errors.ErrUnsupported)
	_, err = c.Transforms(ctx)
	check("transforms", err, errors.ErrUnsupported)
	stranger := connect(t, f, func(o *client.Options) { o.SecretKey = "wrong-secret" })
	_, err = stranger.Nodes(ctx)
	check("wrong secret", err, core.ErrPermission)
	_, err = stranger.Head(ctx, "data", "k")
	check("wrong secret at S3", err, core.ErrPermission)
}

func TestCopyMoveDelete(t *testing.T) {
	f := apitest.New(t, 1)
	c := connect(t, f)
	bucket(t, c)
	info := put(t, c, "a b/ü", []byte("hello"))
	if _, err := c.Copy(t.Context(), "data", "a b/ü", "other", "data", "copy"); !errors.Is(err, core.ErrPrecondition) {
		t.Errorf("copy of another version: got %v", err)
	}
	got, err := c.Copy(t.Context(), "data", "a b/ü", info.ETag, "data", "copy")
	if err != nil || got.ETag != info.ETag {
		t.Errorf("copy: got %+v, %v", got, err)
	}
	if err := c.Delete(t.Context(), "data", "a b/ü", info.ETag); err != nil {
		t.Error(err)
	}
	if data, err := get(t, c, "copy", client.GetOptions{}); err != nil || string(data) != "hello" {
		t.Errorf("got %q, %v", data, err)
	}
}

// TestDeathOfTheNode kills one endpoint after the other between requests.
func TestDeathOfTheNode(t *testing.T) {
	f := apitest.New(t, 3)
	c := connect(t, f)
	bucket(t, c)
	for i := range 3 {
		key := fmt.Sprint(i)
		put(t, c, key, []byte(key))
		if got, err := get(t, c, key, client.GetOptions{}); err != nil || string(got) != key {
			t.Errorf("with %d dead: got %q, %v", i, got, err)
		}
		if _, err := c.Nodes(t.Context()); err != nil {
			t.Errorf("with %d dead: %v", i, err)
		}
		f.Kill(i)
	}
}

func TestNobodyThere(t *testing.T) {
	f := apitest.New(t, 2)
	f.Kill(0)
	f.Kill(1)
	c := connect(t, f, impatient)
	_, err := c.Nodes(t.Context())
	if !errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "gave up") {
		t.Errorf("got %v, want that it is unavailable", err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("my reason"))
	defer cancel()
	if _, err := c.Nodes(ctx); err == nil || !strings.Contains(err.Error(), "my reason") {
		t.Errorf("got %v, want the context's cause", err)
	}
}

func TestFrozenNodeIsLeft(t *testing.T) {
	f := apitest.New(t, 2)
	c := connect(t, f, impatient)
	bucket(t, c)
	f.Freeze(0)
	put(t, c, "k", random(1<<20, 1))
	if got, err := get(t, c, "k", client.GetOptions{}); err != nil || len(got) != 1<<20 {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if n := f.Requests(0); n > 4 {
		t.Errorf("the frozen node got %d requests; it should be avoided", n)
	}
}

func TestUnavailableIsTriedAgain(t *testing.T) {
	f := apitest.New(t, 1)
	c := connect(t, f)
	bucket(t, c)
	f.Unavailable(0, 3)
	put(t, c, "k", []byte("x"))
	f.Unavailable(0, 1_000_000)
	hasty := connect(t, f, impatient)
	if _, err := hasty.Head(t.Context(), "data", "k"); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// TestBrokenDownloadGoesOn breaks every answer of one node early; the download
// must be whole, from several pieces.
func TestBrokenDownloadGoesOn(t *testing.T) {
	f := apitest.New(t, 2)
	c := connect(t, f)
	bucket(t, c)
	data := random(3<<20, 1)
	put(t, c, "k", data)
	for _, after := range []int64{0, 1, 100_000, 1 << 20, 3<<20 - 1} {
		f.BreakAfter(0, 3, after)
		f.BreakAfter(1, 3, after)
		if got, err := get(t, c, "k", client.GetOptions{}); err != nil || !bytes.Equal(got, data) {
			t.Errorf("broken after %d bytes: got %d bytes, %v, equal: %v", after, len(got), err, bytes.Equal(got, data))
		}
		f.BreakAfter(0, 3, after)
		if got, err := get(t, c, "k", client.GetOptions{Offset: 1000, Length: 2 << 20}); err != nil || !bytes.Equal(got, data[1000:1000+2<<20]) {
			t.Errorf("a range, broken after %d bytes: got %d bytes, %v", after, len(got), err)
		}
		f.Heal(0)
		f.Heal(1)
	}
}

// TestDownloadOfReplacedObject replaces the object in the middle of its
// download: it must not be a mixture.
func TestDownloadOfReplacedObject(t *testing.T) {
	f := apitest.New(t, 1)
	c := connect(t, f)
	bucket(t, c)
	put(t, c, "k", random(1<<20, 1))
	f.BreakAfter(0, 1, 1000)
	r, err := c.Get(t.Context(), "data", "k", client.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	put(t, connect(t, f), "k", random(1<<20, 2))
	if _, err := io.ReadAll(r); !errors.Is(err, client.ErrChanged) {
		t.Errorf("got %v, want that it changed", err)
	}
}

// TestCorruptionOnTheWay changes bytes between client and server.
func TestCorruptionOnTheWay(t *testing.T) {
	f := apitest.New(t, 1)
	c := connect(t, f)
	bucket(t, c)
	for _, size := range []int{1000, 12 << 20} {
		data := random(size, 1)
		f.Corrupt(0, 2)
		if size > 1000 {
			f.Heal(0)
		}
		put(t, c, "k", data) // refused by the server, sent again
		f.Corrupt(0, 1)
		if _, err := get(t, c, "k", client.GetOptions{}); !errors.Is(err, core.ErrChecksum) {
			t.Errorf("get of %d bytes: got %v", size, err)
		}
		f.Corrupt(0, 1)
		if _, err := c.Download(t.Context(), "data", "k", &file{}, client.TransferOptions{}); !errors.Is(err, core.ErrChecksum) {
			t.Errorf("download of %d bytes: got %v", size, err)
		}
		f.Heal(0)
		if got, err := get(t, c, "k", client.GetOptions{}); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: what is stored is not what was sent (%v)", size, err)
		}
	}
}

// TestUploadSurvives breaks connections while parts are sent, and kills a node.
func TestUploadSurvives(t *testing.T) {
	f := apitest.New(t, 2)
	c := connect(t, f)
	bucket(t, c)
	data := random(16<<20, 1)
	f.BreakAfter(0, 5, 1<<20)
	var sent, killed atomic.Int64
	info, err := c.Upload(t.Context(), "data", "k", bytes.NewReader(data), int64(len(data)), client.TransferOptions{Progress: func(n int64) {
		if sent.Add(n) > 7<<20 && killed.CompareAndSwap(0, 1) {
			go f.Kill(0)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if sent.Load() != int64(len(data)) {
		t.Errorf("progress: got %d, want %d", sent.Load(), len(data))
	}
	if killed.Load() == 0 {
		t.Error("the node was not killed")
	}
	var w file
	got, err := c.Download(t.Context(), "data", "k", &w, client.TransferOptions{})
	if err != nil || !bytes.Equal(w.b, data) || got.ETag != info.ETag {
		t.Errorf("got %d bytes, ETag %s, %v, want %s", len(w.b), got.ETag, err, info.ETag)
	}
}

func TestListing(t *testing.T) {
	f := apitest.New(t, 2)
	c := connect(t, f)
	b := bucket(t, c)
	var want []string
	for i := range 2500 {
		name := fmt.Sprintf("p%d/%05d", i%2, i)
		want = append(want, name)
		if _, err := f.Objects.Put(t.Context(), mustBucket(t, f), name, strings.NewReader("x"), core.PutOptions{Size: 1}); err != nil {
			t.Fatal(err)
		}
	}
	names := func(o client.ListOptions) (out []string) {
		t.Helper()
		for o, err := range c.List(t.Context(), b, o) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, o.Name)
		}
		return out
	}
	if got := names(client.ListOptions{}); len(got) != len(want) {
		t.Errorf("got %d names, want %d", len(got), len(want))
	}
	if got := names(client.ListOptions{Prefix: "p1/", NamesOnly: true}); len(got) != 1250 || got[0] != "p1/00001" {
		t.Errorf("prefix: got %d names", len(got))
	}
	if got := names(client.ListOptions{Max: 1001}); len(got) != 1001 {
		t.Errorf("max: got %d names", len(got))
	}
	if got := names(client.ListOptions{After: "p1/02490"}); len(got) != 5 {
		t.Errorf("after: got %v", got)
	}
	// Break the answers of both nodes again and again, at odd places.
	f.BreakAfter(0, 4, 50_001)
	f.BreakAfter(1, 4, 70_003)
	got := names(client.ListOptions{})
	if len(got) != len(want) {
		t.Errorf("broken: got %d names, want %d", len(got), len(want))
	}
	for i := 1; i < len(got); i++ {
		if got[i-1] >= got[i] {
			t.Fatalf("broken: %q before %q", got[i-1], got[i])
		}
	}
	for _, err := range c.List(t.Context(), core.BucketName{Provider: core.Shoal, Name: "none"}, client.ListOptions{}) {
		if !errors.Is(err, core.ErrNoSuchBucket) {
			t.Errorf("no bucket: got %v", err)
		}
	}
}

func mustBucket(t testing.TB, f *apitest.Cluster) core.Bucket {
	t.Helper()
	b, err := f.Objects.Bucket(t.Context(), "data")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWatchSurvives kills the node that is asked in the middle of a watch.
func TestWatchSurvives(t *testing.T) {
	f := apitest.New(t, 3)
	c := connect(t, f, func(o *client.Options) { o.Silence = time.Second })
	b := bucket(t, c)
	f.Jobs.Hold()
	job, err := c.StartJob(t.Context(), api.JobSpec{Kind: "copy-bck", From: b.String(), To: "shoal://copy"})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	last, err := c.WatchJob(t.Context(), job.ID, 50*time.Millisecond, func(j api.Job) {
		seen++
		switch seen {
		case 2:
			f.Kill(0)
		case 4:
			f.Freeze(1)
		case 6:
			f.Jobs.Change(func(j *api.Job) { j.State = api.JobDone })
		}
	})
	if err != nil || last.State != api.JobDone || seen < 6 {
		t.Errorf("got state %s after %d reports, %v", last.State, seen, err)
	}
}

// TestPatience reads what takes longer to be made than a node may be silent.
func TestPatience(t *testing.T) {
	asked, release := make(chan struct{}, 10), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "made")
	}))
	defer slow.Close()
	c, err := client.New(client.Options{Endpoints: []string{slow.URL}, AccessKey: "a", SecretKey: "s", Silence: 90 * time.Millisecond, RetryFor: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	time.AfterFunc(time.Second, func() { close(release) })
	r, err := c.Get(t.Context(), "data", "key", client.GetOptions{Query: map[string][]string{"transform": {"x"}}, Patience: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "made" || len(asked) != 1 {
		t.Errorf("got %q, %v, after %d requests", got, err, len(asked))
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// TestStartOnce loses the answer of a start: the job must not be started twice.
func TestStartOnce(t *testing.T) {
	f := apitest.New(t, 2)
	c := connect(t, f)
	b := bucket(t, c)
	f.Jobs.Hold()
	f.BreakAfter(0, 1, 200) // more than the request, less than the answer
	if _, err := c.StartJob(t.Context(), api.JobSpec{Kind: "copy-bck", From: b.String(), To: "shoal://copy"}); err != nil {
		t.Fatal(err)
	}
	jobs, err := c.Jobs(t.Context(), client.JobFilter{All: true})
	if err != nil || len(jobs) != 1 {
		t.Errorf("got %d jobs, %v, want 1", len(jobs), err)
	}
}

// TestCreateOnce loses the answer of a creation: the bucket is there then, and
// that is no conflict.
func TestCreateOnce(t *testing.T) {
	f := apitest.New(t, 2)
	c := connect(t, f)
	b := core.BucketName{Provider: core.Shoal, Name: "data"}
	f.BreakAfter(0, 1, 50)
	if got, err := c.CreateBucket(t.Context(), b, api.CreateBucket{}); err != nil || got.URI != "shoal://data" {
		t.Errorf("create: got %+v, %v", got, err)
	}
	if n := f.Requests(0); n == 0 {
		t.Error("the first endpoint was not asked")
	}
}

func TestWaitHealthy(t *testing.T) {
	f := apitest.New(t, 2)
	c := connect(t, f)
	f.Nodes.SetNodeState("n1", core.NodeDown)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.WaitHealthy(ctx, func(api.Cluster) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := c.WaitHealthy(t.Context(), func(api.Cluster) {})
		done <- err
	}()
	f.Nodes.SetNodeState("n1", core.NodeActive)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := client.Options{Endpoints: []string{"http://n1:7070"}, AccessKey: "a", SecretKey: "b"}
	if _, err := client.New(good); err != nil {
		t.Error(err)
	}
	for _, e := range []string{"ftp://x", "http://", "http://x/path", "http://x:y:z"} {
		bad := good
		bad.Endpoints = []string{e}
		if _, err := client.New(bad); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("endpoint %q: got %v", e, err)
		}
	}
	bare := good
	bare.Endpoints = []string{"n1:7070", "https://n2"}
	c, err := client.New(bare)
	if err != nil || strings.Join(c.Endpoints(), " ") != "http://n1:7070 https://n2" {
		t.Errorf("got %v, %v", c.Endpoints(), err)
	}
	if _, err := client.New(client.Options{Endpoints: good.Endpoints}); !errors.Is(err, core.ErrPermission) {
		t.Errorf("no keys: got %v", err)
	}
}

// TestOriginPaths: the name of an origin with a port is signed as it is sent.
func TestOriginPaths(t *testing.T) {
	b := core.BucketName{Provider: core.HTTP, Name: "127.0.0.1:8080"}
	if got, want := api.BucketPath(b), api.BucketsPath+"/http/127.0.0.1%3A8080"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
