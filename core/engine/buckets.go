package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/placement"
)

// defaultInline is the size up to which data is kept in records; scheme none
// has less to gain, since records are kept R times.
const (
	defaultInline     = 128 << 10
	defaultInlineNone = 4 << 10
)

// DefaultPolicy is what a bucket gets that asks for nothing.
func (n *Node) DefaultPolicy() core.Policy { return n.PolicyFor(nil) }

// PolicyFor is what a bucket gets that asks for a scheme only; nil: for nothing.
func (n *Node) PolicyFor(scheme *core.Scheme) core.Policy {
	m := n.driver.effect.Load()
	p := core.Policy{Scheme: n.opt.Defaults.Scheme, Domain: n.opt.Defaults.Domain, Inline: n.opt.Defaults.Inline, ETag: "md5"}
	if scheme != nil {
		p.Scheme = *scheme
	}
	nodes := 0
	if m != nil {
		for i := range m.Nodes {
			if s := m.Nodes[i].State; s != core.NodeDecommissioned && s != core.NodeJoining {
				nodes++
			}
		}
	}
	if scheme == nil && p.Scheme == (core.Scheme{}) {
		p.Scheme = core.None()
		if nodes >= 2 {
			p.Scheme = core.Mirror(2)
		}
	}
	return n.completePolicy(p, nodes)
}

// completePolicy fills in what follows from the scheme and the cluster.
func (n *Node) completePolicy(p core.Policy, nodes int) core.Policy {
	if p.Domain == "" {
		p.Domain = core.DomainNode
		if nodes < 2 {
			p.Domain = core.DomainDisk
		}
	}
	if p.Inline <= 0 {
		p.Inline = defaultInline
	}
	if p.Scheme.M == 0 {
		p.Inline = min(p.Inline, defaultInlineNone)
	}
	return p
}

// CreateBucket creates a bucket of the cluster's own; see [Objects.AddBucket].
func (o *Objects) CreateBucket(ctx context.Context, b core.BucketName, p *core.Policy, alias string) (core.Bucket, error) {
	if b.Remote() {
		return core.Bucket{}, fmt.Errorf("bucket %s: is not the cluster's to create: %w", b, core.ErrInvalid)
	}
	policy := o.node.DefaultPolicy()
	if p != nil {
		policy = *p
	}
	return o.AddBucket(ctx, core.Bucket{Name: b, Alias: alias, Policy: policy})
}

// AddBucket adds a bucket by name, alias ("" for one that is free), policy and
// remote settings, and returns once every node knows of it or will before it
// says anything else. Whether a remote bucket is there the caller has asked.
func (o *Objects) AddBucket(ctx context.Context, row core.Bucket) (core.Bucket, error) {
	n := o.node
	b, policy := row.Name, row.Policy
	if err := b.Validate(); err != nil {
		return core.Bucket{}, err
	}
	m, err := n.fresh(ctx)
	if err != nil {
		return core.Bucket{}, err
	}
	if have := m.BucketNamed(b); have != nil {
		return *have, fmt.Errorf("bucket %s: %w", b, core.ErrExists)
	}
	if need, have, ok := placement.Holds(m, policy.Scheme, policy.Domain); !ok {
		return core.Bucket{}, fmt.Errorf("bucket %s: scheme %s with domain=%s needs %d %ss, the cluster has %d; choose another scheme, or domain=disk: %w",
			b, policy.Scheme, policy.Domain, need, policy.Domain, have, core.ErrInvalid)
	}
	err = n.keeper.one(ctx, core.Change{Kind: core.ChangeAddBucket, Bucket: &core.Bucket{
		Name: b, Alias: row.Alias, Policy: policy, Remote: row.Remote,
	}})
	if err != nil {
		return core.Bucket{}, err
	}
	have := n.driver.effect.Load().BucketNamed(b)
	if have == nil {
		return core.Bucket{}, fmt.Errorf("bucket %s was removed at once: %w", b, core.ErrNoSuchBucket)
	}
	if have.State == core.BucketCreating {
		return n.awaitBucket(ctx, have.ID)
	}
	return *have, nil
}

// awaitBucket waits until a bucket that needs more replicas of records has them.
func (n *Node) awaitBucket(ctx context.Context, id core.BucketID) (core.Bucket, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the slots' records are still being replicated"))
	defer cancel()
	m, err := n.driver.awaitMap(ctx, func(m *core.Map) bool {
		b := m.Bucket(id)
		return b == nil || b.State != core.BucketCreating
	})
	if err != nil {
		return core.Bucket{}, err
	}
	if b := m.Bucket(id); b != nil {
		return *b, nil
	}
	return core.Bucket{}, fmt.Errorf("bucket %d: %w", id, core.ErrNoSuchBucket)
}

// Bucket looks a bucket up by its alias. That there is none is said only on the
// word of a majority of voters.
func (o *Objects) Bucket(ctx context.Context, alias string) (core.Bucket, error) {
	return o.node.bucket(ctx, func(m *core.Map) *core.Bucket { return m.BucketAlias(alias) }, alias)
}

// BucketNamed looks a bucket up by its full name; see [Objects.Bucket].
func (o *Objects) BucketNamed(ctx context.Context, b core.BucketName) (core.Bucket, error) {
	return o.node.bucket(ctx, func(m *core.Map) *core.Bucket { return m.BucketNamed(b) }, b.String())
}

func (n *Node) bucket(ctx context.Context, find func(*core.Map) *core.Bucket, name string) (core.Bucket, error) {
	if m := n.driver.effect.Load(); m != nil {
		if b := find(m); b != nil && b.State != core.BucketDeleting {
			return *b, nil
		}
	}
	m, err := n.fresh(ctx)
	if err != nil {
		return core.Bucket{}, err
	}
	if b := find(m); b != nil && b.State != core.BucketDeleting {
		return *b, nil
	}
	return core.Bucket{}, fmt.Errorf("bucket %q: %w", name, core.ErrNoSuchBucket)
}

// known says whether the bucket still exists.
func (n *Node) known(ctx context.Context, b core.Bucket) error {
	name := b.Alias
	if name == "" {
		name = fmt.Sprint(b.ID)
	}
	_, err := n.bucket(ctx, func(m *core.Map) *core.Bucket { return m.Bucket(b.ID) }, name)
	return err
}

// Buckets lists the buckets by alias.
func (o *Objects) Buckets(ctx context.Context) ([]core.Bucket, error) {
	m, err := o.node.fresh(ctx)
	if err != nil {
		return nil, err
	}
	var out []core.Bucket
	for _, b := range m.Buckets {
		if b.State != core.BucketDeleting {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b core.Bucket) int { return strings.Compare(a.Alias, b.Alias) })
	return out, nil
}

// SetBucket changes a bucket's policy or alias.
func (o *Objects) SetBucket(ctx context.Context, id core.BucketID, change func(*core.Bucket)) (core.Bucket, error) {
	n := o.node
	m, err := n.fresh(ctx)
	if err != nil {
		return core.Bucket{}, err
	}
	b := m.Bucket(id)
	if b == nil {
		return core.Bucket{}, fmt.Errorf("bucket %d: %w", id, core.ErrNoSuchBucket)
	}
	next := *b
	change(&next)
	if need, have, ok := placement.Holds(m, next.Policy.Scheme, next.Policy.Domain); !ok {
		return *b, fmt.Errorf("bucket %s: scheme %s with domain=%s needs %d %ss, the cluster has %d: %w",
			b.Name, next.Policy.Scheme, next.Policy.Domain, need, next.Policy.Domain, have, core.ErrInvalid)
	}
	if err := n.keeper.one(ctx, core.Change{Kind: core.ChangeSetBucket, Bucket: &next}); err != nil {
		return *b, err
	}
	if b = n.driver.effect.Load().Bucket(id); b == nil {
		return next, fmt.Errorf("bucket %s: %w", next.Name, core.ErrNoSuchBucket)
	}
	return *b, nil
}

// DeleteBucket removes an empty bucket: it refuses writes first, which is in
// effect only when no node can still accept one, then looks, then removes. Of a
// remote one it forgets what is present; the remote keeps everything.
func (o *Objects) DeleteBucket(ctx context.Context, alias string) error {
	n := o.node
	b, err := o.Bucket(ctx, alias)
	if err != nil {
		return err
	}
	empty := func() error { return n.emptyBucket(ctx, b) }
	if b.Name.Remote() {
		empty = func() error { return n.forgetBucket(ctx, &b) }
	} else if err := empty(); err != nil {
		return err
	}
	closing := b
	closing.State = core.BucketDeleting
	if err := n.keeper.one(ctx, core.Change{Kind: core.ChangeSetBucket, Bucket: &closing}); err != nil {
		return err
	}
	if err := empty(); err != nil {
		open := b
		open.State = core.BucketOK
		if undo := n.keeper.one(ctx, core.Change{Kind: core.ChangeSetBucket, Bucket: &open}); undo != nil {
			return errors.Join(err, fmt.Errorf("bucket %s could not be opened again: %w", b.Name, undo))
		}
		return err
	}
	return n.keeper.one(ctx, core.Change{Kind: core.ChangeRemoveBucket, Bucket: &closing})
}

func (n *Node) emptyBucket(ctx context.Context, b core.Bucket) error {
	found, _, err := n.page(ctx, core.Scan{Bucket: b.ID, KeysOnly: true}, 1, false)
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("bucket %q holds objects, %q for one: %w", b.Alias, found[0].Key, core.ErrNotEmpty)
	}
	return err
}

// fresh returns a map in effect that was the newest at some time during the
// call, by the word of a majority of voters.
func (n *Node) fresh(ctx context.Context) (*core.Map, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no majority of voters answers: %w", core.ErrUnavailable))
	defer cancel()
	for {
		_, m, changed := n.driver.maps()
		if m == nil {
			return nil, fmt.Errorf("this node knows no map in effect yet: %w", core.ErrUnavailable)
		}
		newest, ok := n.askVoters(ctx, m)
		if ok {
			return n.driver.awaitMap(ctx, func(m *core.Map) bool { return m.Epoch >= newest })
		}
		timer := time.NewTimer(200 * time.Millisecond)
		select {
		case <-changed:
			timer.Stop()
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("the newest map is not known: %w", context.Cause(ctx))
		}
	}
}

// askVoters returns the highest epoch that a majority of voters has confirmed
// between them.
func (n *Node) askVoters(ctx context.Context, m *core.Map) (core.Epoch, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var mu sync.Mutex
	var newest core.Epoch
	answered := map[core.NodeID]bool{}
	enough := make(chan struct{})
	var wg sync.WaitGroup
	for _, v := range m.Voters {
		wg.Go(func() {
			e, err := n.askEpoch(ctx, v.Node)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				return
			}
			newest = max(newest, e)
			answered[v.Node] = true
			if len(answered) == len(m.Voters)/2+1 {
				close(enough)
			}
		})
	}
	go func() {
		wg.Wait()
		cancel()
	}()
	select {
	case <-enough:
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	return newest, len(answered) > len(m.Voters)/2
}

func (n *Node) askEpoch(ctx context.Context, node core.NodeID) (core.Epoch, error) {
	var resp []byte
	var err error
	if node == n.id {
		resp, err = n.serveEpoch()
	} else {
		resp, err = n.net.Call(ctx, node, methodEpoch, nil)
	}
	if err != nil {
		return 0, err
	}
	e, k := binary.Uvarint(resp)
	if k <= 0 {
		return 0, fmt.Errorf("epoch: %w", core.ErrInvalid)
	}
	return core.Epoch(e), nil
}

// serveEpoch answers with the epoch that this node's voter has confirmed.
func (n *Node) serveEpoch() ([]byte, error) {
	n.driver.mu.Lock()
	defer n.driver.mu.Unlock()
	return binary.AppendUvarint(nil, uint64(n.driver.node.Confirmed())), nil
}
