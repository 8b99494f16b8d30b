package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
)

// A bucket of another provider than Shoal is a copy of what others keep; see
// docs/remote.md. What is present is an object like any other. What is not, or
// not whole, its slot's owner fetches, in a session that all readers share.

const (
	// remoteBlock is what is fetched at a time, unless an object would then
	// have more than maxBlocks.
	remoteBlock = 8 << 20
	maxBlocks   = 4096
	// remoteMemory bounds the blocks that a node has in memory.
	remoteMemory = 256 << 20
	// remotePatience is how long a remote may give no byte, and no answer,
	// before whoever waits for it is told.
	remotePatience = 25 * time.Second
	// answerWithin is how long the owner lets a reader wait before it has it
	// ask again.
	answerWithin = 2 * time.Second
	// maxFetchCalls bounds the calls for bytes that this node has under way to
	// others, so that other calls get through.
	maxFetchCalls = 128
)

// OpenRemote returns what speaks to the remote behind a bucket. It does no I/O
// and is called for every request. What it returns repeats requests as long as
// it is worth while, until their context ends.
type OpenRemote func(b core.BucketName, s core.RemoteSettings) (core.Backend, error)

// remotes is a node's part in remote buckets.
type remotes struct {
	node   *Node
	block  int64
	memory *blockMemory
	past   *blockMemory  // bytes of objects that are copied past the disks
	calls  chan struct{} // a token for each call for bytes under way
	// leaving are readers that have gone before the end.
	leaving chan *fetchRequest

	count atomic.Int64 // of sessions

	mu       sync.Mutex
	life     context.Context //nolint:containedctx // that of run; nil before and after
	group    sync.WaitGroup
	sessions map[objectName][]*fetchSession
	numbers  map[uint64]*fetchSession
	last     uint64
	// broken are sessions of late whose bytes were wrong, for readers who had
	// some and have not heard so.
	broken map[uint64]brokenSession
}

// brokenSession is what is kept of a session whose bytes were wrong.
type brokenSession struct {
	name objectName
	err  error
	at   core.Instant
}

// keepBroken is for how long readers of a broken session are told. One who has
// been silent for so long was forgotten before.
const keepBroken = 2 * silentReader

// objectName is an object of a bucket.
type objectName struct {
	bucket core.BucketID
	key    string
}

func newRemotes(n *Node) *remotes {
	r := &remotes{
		node: n, block: n.opt.RemoteBlock, past: newBlockMemory(pastMemory, pastUsual), calls: make(chan struct{}, maxFetchCalls), leaving: make(chan *fetchRequest, maxFetchCalls),
		sessions: map[objectName][]*fetchSession{}, numbers: map[uint64]*fetchSession{},
		broken: map[uint64]brokenSession{},
	}
	if r.block == 0 {
		r.block = remoteBlock
	}
	memory := n.opt.RemoteMemory
	if memory == 0 {
		memory = remoteMemory
	}
	r.memory = newBlockMemory(memory, r.block)
	r.memory.pressed = r.wakeAll
	r.past.pressed = func() {} // nothing of it is idle
	return r
}

// run lets sessions live until ctx ends.
func (r *remotes) run(ctx context.Context) {
	r.mu.Lock()
	r.life = ctx
	r.mu.Unlock()
	for ctx.Err() == nil {
		select {
		case q := <-r.leaving:
			r.group.Go(func() { r.node.sayLeave(ctx, q) })
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	r.life = nil
	r.mu.Unlock()
	r.group.Wait()
}

// wakeAll has all sessions store what they have, for somebody waits for memory.
func (r *remotes) wakeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.numbers {
		s.wake()
	}
}

// start runs f beside, until it ends, ctx does, or the node.
func (r *remotes) start(ctx context.Context, f func(ctx context.Context)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	life := r.life
	if life == nil {
		return false
	}
	r.group.Go(func() {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		f(ctx)
	})
	return true
}

var errNoRemotes = fmt.Errorf("this node is not set up to reach remote buckets: %w", errors.ErrUnsupported)

// errStopping says that the node ends, or does not run yet.
var errStopping = fmt.Errorf("the node is not running: %w", core.ErrUnavailable)

// remoteBucket is a remote bucket with what speaks to it.
type remoteBucket struct {
	core.Bucket
	client core.Backend
	name   string // at the remote
}

// remote opens a remote bucket.
func (n *Node) remote(b *core.Bucket) (*remoteBucket, error) {
	if n.opt.Remote == nil {
		return nil, fmt.Errorf("bucket %s: %w", b.Name, errNoRemotes)
	}
	client, err := n.opt.Remote(b.Name, b.Remote)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", b.Name, err)
	}
	out := &remoteBucket{Bucket: *b, client: client, name: b.Remote.Name}
	if out.name == "" {
		out.name = b.Name.Name
	}
	return out, nil
}

// remoteByID opens a remote bucket by its number.
func (n *Node) remoteByID(ctx context.Context, id core.BucketID) (*remoteBucket, error) {
	b, err := n.bucket(ctx, func(m *core.Map) *core.Bucket { return m.Bucket(id) }, fmt.Sprint(id))
	if err != nil {
		return nil, err
	}
	return n.remote(&b)
}

// head asks the remote for an object.
func (b *remoteBucket) head(ctx context.Context, key string) (core.RemoteObject, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, remotePatience, errSilentRemote)
	defer cancel()
	o, err := b.client.Head(ctx, b.name, key)
	if err == nil {
		err = b.tags(ctx, key, &o)
	}
	return o, remoteError(ctx, err)
}

// errSilentRemote says that a remote did not answer.
var errSilentRemote = fmt.Errorf("the remote gave no answer for %v: %w", remotePatience, core.ErrUnavailable)

// remoteError makes the end of our patience ErrUnavailable, not the caller's, unless the
// remote has asked for fewer requests: that is an answer.
func remoteError(ctx context.Context, err error) error {
	if err != nil && !errors.Is(err, core.ErrThrottled) && errors.Is(context.Cause(ctx), errSilentRemote) {
		return fmt.Errorf("%w (%v)", errSilentRemote, err) //nolint:errorlint // its context's end is not the caller's
	}
	return err
}

// tagCount is how backends say that an object has tags which they did not tell.
const tagCount = "X-Amz-Tagging-Count"

// tags completes an object by the tags that its backend tells separately.
func (b *remoteBucket) tags(ctx context.Context, key string, o *core.RemoteObject) error {
	if _, has := o.Headers[tagCount]; !has {
		return nil
	}
	headers := make(map[string]string, len(o.Headers))
	for k, v := range o.Headers {
		if k != tagCount {
			headers[k] = v
		}
	}
	o.Headers = headers
	t, ok := b.client.(core.RemoteTagger)
	if !ok {
		return nil
	}
	var err error
	o.Tags, err = t.Tags(ctx, b.name, key)
	return err
}

// recordOfRemote describes a remote object as a record without data.
func recordOfRemote(o *core.RemoteObject, scheme core.Scheme) core.Record {
	return core.Record{
		Size: o.Size, ETag: o.ETag, Modified: o.Modified.UTC(), Headers: o.Headers, Meta: o.Meta, Tags: o.Tags,
		Checksum: o.Checksum, Scheme: scheme, Remote: &core.RemoteCopy{Version: o.Version, Partial: true},
	}
}

// touch is told of rows that are about to be written, and again once they are:
// what is being fetched of their objects may be out of date.
func (r *remotes) touch(rows []core.Row) {
	if r.count.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range rows {
		if s := rows[i].Space; s != core.SpaceObject && s != core.SpaceIntent {
			continue
		}
		for _, s := range r.sessions[objectName{rows[i].Bucket, rows[i].Key}] {
			s.stale.Store(true)
		}
	}
}

// remoteVersion is the version that a record is a copy of.
func remoteVersion(rec *core.Record) core.RemoteVersion {
	if rec.Remote == nil {
		return ""
	}
	return rec.Remote.Version
}

// pendingIntent says whether an intent's row is of a write that is under way.
func pendingIntent(row *core.Row) (bool, error) {
	in, err := remote.DecodeIntent(row.Value)
	if err != nil {
		return false, fmt.Errorf("write under way of %q: %w", row.Key, err)
	}
	return in.Pending(), nil
}
