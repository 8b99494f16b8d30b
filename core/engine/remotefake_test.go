package engine_test

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// fakeRemote is a remote in memory that counts what it is asked and does what a
// test wants.
type fakeRemote struct {
	mu      sync.Mutex
	objects map[string]*fakeObject
	last    int
	counts  map[string]int
	gets    []core.RemoteGet
	read    int64 // bytes that bodies delivered

	// onCall, if not nil, is asked before every request; an error is its answer.
	onCall func(ctx context.Context, op, key string) error
	// onGet may replace what a GET answers.
	onGet func(key string, g core.RemoteGet, o *core.RemoteObject, body []byte) io.ReadCloser

	// noRanges: what lies before a range is read, too.
	noRanges bool
	// onPut is called when a write has taken place, before its answer.
	onPut func(key string) error

	abilities core.RemoteAbilities
	// listsMeta: listings tell metadata.
	listsMeta atomic.Bool
	// clock, if not nil, says when objects are written.
	clock   func() time.Time
	uploads map[string]*fakeUpload
}

type fakeUpload struct {
	core.RemotePut
	parts map[int][]byte
}

type fakeObject struct {
	core.RemoteObject
	data []byte
}

func newFakeRemote() *fakeRemote {
	return &fakeRemote{
		objects: map[string]*fakeObject{}, counts: map[string]int{}, uploads: map[string]*fakeUpload{},
		abilities: core.RemoteAbilities{PutIf: true, DeleteIf: true, PageSize: 1000, PartSize: 5 << 20, MaxParts: 10_000},
	}
}

func (f *fakeRemote) open(core.BucketName, core.RemoteSettings) (core.Backend, error) { return f, nil }

// answer sets onCall; requests may be under way, of reading ahead for example.
func (f *fakeRemote) answer(on func(ctx context.Context, op, key string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onCall = on
}

// replaceBodies sets onGet.
func (f *fakeRemote) replaceBodies(on func(key string, g core.RemoteGet, o *core.RemoteObject, body []byte) io.ReadCloser) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onGet = on
}

// begin counts a request.
func (f *fakeRemote) begin(ctx context.Context, op, key string) error {
	f.mu.Lock()
	f.counts[op]++
	on := f.onCall
	f.mu.Unlock()
	if on != nil {
		return on(ctx, op, key)
	}
	return ctx.Err()
}

// set puts an object behind the cluster's back.
func (f *fakeRemote) set(key string, data []byte, change ...func(*core.RemoteObject)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(key, data, change...)
}

func (f *fakeRemote) put(key string, data []byte, change ...func(*core.RemoteObject)) core.RemoteObject {
	f.last++
	sum := md5.Sum(data) //nolint:gosec // S3's ETag
	o := core.RemoteObject{
		Key: key, Size: int64(len(data)), Version: core.RemoteVersion(fmt.Sprint("v", f.last)), ETag: hex.EncodeToString(sum[:]),
		Modified: time.Date(2020, 1, 2, 3, 4, f.last%60, 0, time.UTC), MD5: sum[:],
	}
	if f.clock != nil {
		o.Modified = f.clock()
	}
	for _, c := range change {
		c(&o)
	}
	f.objects[key] = &fakeObject{o, data}
	return o
}

// unset removes an object behind the cluster's back.
func (f *fakeRemote) unset(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.objects, key)
}

// data returns what the remote has, nil for nothing.
func (f *fakeRemote) data(key string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.objects[key]; o != nil {
		return o.data
	}
	return nil
}

// count returns how many requests of some kinds there were.
func (f *fakeRemote) count(ops ...string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for op, k := range f.counts {
		if len(ops) == 0 || slices.Contains(ops, op) {
			n += k
		}
	}
	return n
}

func (f *fakeRemote) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts, f.gets, f.read = map[string]int{}, nil, 0
}

func (f *fakeRemote) Abilities() core.RemoteAbilities { return f.abilities }

func (f *fakeRemote) Buckets(ctx context.Context) ([]string, error) {
	return []string{"remote"}, f.begin(ctx, "buckets", "")
}

func (f *fakeRemote) HeadBucket(ctx context.Context, _ string) error {
	return f.begin(ctx, "headbucket", "")
}

func (f *fakeRemote) Head(ctx context.Context, _, key string) (core.RemoteObject, error) {
	if err := f.begin(ctx, "head", key); err != nil {
		return core.RemoteObject{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.objects[key]; o != nil {
		return o.RemoteObject, nil
	}
	return core.RemoteObject{}, fmt.Errorf("fake: %q: %w", key, core.ErrNotFound)
}

func (f *fakeRemote) Get(ctx context.Context, _, key string, g core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
	if err := f.begin(ctx, "get", key); err != nil {
		return core.RemoteObject{}, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gets = append(f.gets, g)
	o := f.objects[key]
	switch {
	case o == nil:
		return core.RemoteObject{}, nil, fmt.Errorf("fake: %q: %w", key, core.ErrNotFound)
	case g.Version != "" && g.Version != o.Version:
		return core.RemoteObject{}, nil, fmt.Errorf("fake: %q: %w", key, core.ErrPrecondition)
	case g.Offset >= o.Size:
		return core.RemoteObject{}, nil, fmt.Errorf("fake: %q: %w", key, core.ErrRange)
	}
	end := o.Size
	if g.Length >= 0 {
		end = min(end, g.Offset+g.Length)
	}
	info, data := o.RemoteObject, o.data[g.Offset:end]
	if f.noRanges && (g.Offset > 0 || g.Length >= 0) {
		info.NoRanges = true
		f.read += g.Offset
	}
	if f.onGet != nil {
		if body := f.onGet(key, g, &info, data); body != nil {
			return info, &countedBody{body, f, ctx}, nil
		}
	}
	return info, &countedBody{io.NopCloser(bytes.NewReader(data)), f, ctx}, nil
}

type countedBody struct {
	io.ReadCloser
	f   *fakeRemote
	ctx context.Context
}

func (b *countedBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	b.f.mu.Lock()
	b.f.read += int64(n)
	b.f.mu.Unlock()
	return n, err
}

// gatedBody delivers bytes as they are let through.
type gatedBody struct {
	data []byte
	gate <-chan int // how many bytes more; closed: all
	left int
	open bool
	done chan struct{}
	once sync.Once
}

func newGatedBody(data []byte, gate <-chan int) *gatedBody {
	return &gatedBody{data: data, gate: gate, done: make(chan struct{})}
}

// gate has the remote send only the first 100 bytes of a request for an object from
// its beginning; what is sent on the channel lets that many more through, and its end
// all.
func (f *fakeRemote) gate() chan int {
	gate := make(chan int, 1)
	f.replaceBodies(func(_ string, g core.RemoteGet, _ *core.RemoteObject, body []byte) io.ReadCloser {
		if g.Offset == 0 {
			return newGatedBody(body, gate)
		}
		return nil
	})
	gate <- 100
	return gate
}

func (b *gatedBody) Read(p []byte) (int, error) {
	for b.left == 0 && !b.open && len(b.data) > 0 {
		select {
		case n, ok := <-b.gate:
			b.left, b.open = n, !ok
		case <-b.done:
			return 0, fmt.Errorf("closed: %w", core.ErrUnavailable)
		}
	}
	if len(b.data) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(b.data))
	if !b.open {
		n = min(n, b.left)
		b.left -= n
	}
	copy(p, b.data[:n])
	b.data = b.data[n:]
	return n, nil
}

func (b *gatedBody) Close() error { b.once.Do(func() { close(b.done) }); return nil }

func (f *fakeRemote) List(ctx context.Context, _ string, o core.RemoteListOptions) (core.RemoteListing, error) {
	if err := f.begin(ctx, "list", o.Prefix); err != nil {
		return core.RemoteListing{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var l core.RemoteListing
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		if !strings.HasPrefix(key, o.Prefix) || key <= o.After || o.Until != "" && key >= o.Until {
			continue
		}
		name := key
		if i := strings.Index(key[len(o.Prefix):], o.Delimiter); o.Delimiter != "" && i >= 0 {
			name = key[:len(o.Prefix)+i+len(o.Delimiter)]
			if len(l.Prefixes) > 0 && l.Prefixes[len(l.Prefixes)-1] == name || name+"\xff" == o.After {
				continue
			}
		}
		if len(l.Objects)+len(l.Prefixes) == o.Max {
			l.More = true
			return l, nil
		}
		if l.Next = name; name != key {
			l.Prefixes = append(l.Prefixes, name)
			l.Next = name + "\xff"
			continue
		}
		info := f.objects[key].RemoteObject
		info.Headers, info.Tags = nil, nil
		if l.Meta = f.listsMeta.Load() && o.Meta; !l.Meta {
			info.Meta = nil
		}
		l.Objects = append(l.Objects, info)
	}
	return l, nil
}

// fakeBlock is the block of tests.
const fakeBlock = 64 << 10

// startRemote starts a cluster with a remote bucket.
func startRemote(t *testing.T, nodes, disks int, change ...func(*engine.Options)) (*testCluster, *fakeRemote, core.Bucket) {
	t.Helper()
	return startRemoteOf(t, nodes, disks, hooks{node: func(o *engine.Options) {
		for _, c := range change {
			c(o)
		}
	}})
}

func startRemoteOf(t *testing.T, nodes, disks int, h hooks) (*testCluster, *fakeRemote, core.Bucket) {
	t.Helper()
	f := newFakeRemote()
	with := h.node
	h.node = func(o *engine.Options) {
		o.Remote, o.RemoteBlock = f.open, fakeBlock
		if with != nil {
			with(o)
		}
	}
	tc := startClusterOf(t, nodes, disks, h)
	scheme := core.Mirror(2)
	if nodes*disks == 1 {
		scheme = core.None()
	}
	domain := core.DomainNode
	if nodes == 1 {
		domain = core.DomainDisk
	}
	row := core.Bucket{
		Name: core.BucketName{Provider: core.S3, Name: "remote"}, Alias: "remote",
		Policy: core.Policy{Scheme: scheme, Domain: domain, Inline: 8 << 10, ETag: "md5"},
	}
	if _, err := tc.nodes[0].Objects().AddBucket(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	var b core.Bucket
	waitFor(t, "the bucket to be open", func() (err error) {
		for _, n := range tc.nodes {
			if b, err = n.Objects().Bucket(t.Context(), "remote"); err == nil && b.State != core.BucketOK {
				err = fmt.Errorf("it is %s", b.State)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return tc, f, b
}

// remoteBytes are always the same for a seed.
func remoteBytes(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

// get reads an object, or a range of it.
func get(t *testing.T, n *engine.Node, b core.Bucket, key string, o core.GetOptions) ([]byte, *core.Object, error) {
	t.Helper()
	obj, err := n.Objects().Get(t.Context(), b, key, o)
	if err != nil {
		return nil, obj, err
	}
	defer func() { _ = obj.Body.Close() }()
	data, err := io.ReadAll(obj.Body)
	return data, obj, err
}

// mustGet reads what must be there.
func mustGet(t *testing.T, n *engine.Node, b core.Bucket, key string, want []byte) *core.Object {
	t.Helper()
	data, obj, err := get(t, n, b, key, core.GetOptions{})
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if !bytes.Equal(data, want) {
		t.Fatalf("get %s: %d bytes, want %d, or others", key, len(data), len(want))
	}
	return obj
}
