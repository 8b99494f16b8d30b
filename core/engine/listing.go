package engine

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/shoalstore/shoal/core"
)

// List lists objects, those with a common prefix up to the delimiter as one.
func (o *Objects) List(ctx context.Context, bucket core.Bucket, opt core.ListOptions) (core.Listing, error) {
	if err := o.node.known(ctx, bucket); err != nil {
		return core.Listing{}, err
	}
	if opt.Max <= 0 {
		opt.Max = 1000
	}
	if bucket.Name.Remote() {
		return o.node.listPage(ctx, &bucket, opt)
	}
	l := &lister{node: o.node, bucket: &bucket, opt: opt, after: opt.After}
	err := l.run(ctx)
	if !l.out.More {
		l.out.Next = ""
	}
	return l.out, err
}

// lister makes a page of a listing out of pages of keys.
type lister struct {
	node   *Node
	bucket *core.Bucket
	opt    core.ListOptions
	after  string // where the next page of keys begins
	before string // where the listing ends, "" at the last key
	out    core.Listing
	// presence, of a remote bucket, says how much of each object is present.
	presence []Presence
}

// full says whether the page has all that it may have.
func (l *lister) full() bool { return len(l.out.Objects)+len(l.out.Prefixes) == l.opt.Max }

func (l *lister) run(ctx context.Context) error {
	for {
		want := l.opt.Max - len(l.out.Objects) - len(l.out.Prefixes) + 1
		found, more, err := l.node.page(ctx, core.Scan{
			Bucket: l.bucket.ID, Space: core.SpaceObject, Prefix: l.opt.Prefix, AfterKey: l.after, Before: l.before,
		}, want, true)
		if err != nil {
			return err
		}
		if err := l.take(found); err != nil || l.out.More || !more {
			return err
		}
	}
}

// take adds keys to the page until it is full. Those behind a common prefix are
// passed over, here and by where the next page of keys begins.
func (l *lister) take(found []core.Found) error {
	for i := range found {
		f := &found[i]
		if f.Key <= l.after && l.after != "" {
			continue
		}
		if l.full() {
			l.out.More = true
			return nil
		}
		if p, ok := l.common(f.Key); ok {
			l.out.Prefixes = append(l.out.Prefixes, p)
			l.after = pastPrefix(p)
			l.out.Next = l.after
			continue
		}
		rec, err := core.DecodeRecord(f.Value)
		if err != nil {
			return fmt.Errorf("record of %q: %w", f.Key, err)
		}
		if l.bucket.Name.Remote() {
			l.presence = append(l.presence, PresenceOf(rec))
		}
		l.out.Objects = append(l.out.Objects, info(l.bucket, f.Key, rec, f.Version))
		l.out.Next, l.after = f.Key, f.Key
	}
	return nil
}

// common returns the common prefix that stands for a key.
func (l *lister) common(key string) (string, bool) {
	if l.opt.Delimiter == "" || !strings.HasPrefix(key, l.opt.Prefix) {
		return "", false
	}
	i := strings.Index(key[len(l.opt.Prefix):], l.opt.Delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(l.opt.Prefix)+i+len(l.opt.Delimiter)], true
}

// pastPrefix is a string after all keys with the prefix and before all others
// that follow: keys are UTF-8, in which 0xff does not occur.
func pastPrefix(p string) string { return p + "\xff" }

// Pages of a listing that goes on: the first comes soon, later ones cost less a
// key. The next is fetched while one is delivered.
const (
	firstPage = 1000
	fullPage  = 16_000
)

// ListAll lists all objects of a bucket, of a remote one those that are present,
// with a prefix and after a key, in order, until yield returns false. An error is
// the last that is yielded.
func (n *Node) ListAll(ctx context.Context, bucket core.Bucket, prefix, after string, namesOnly bool, yield func(key string, rec *core.Record, err error) bool) {
	type keys struct {
		found []core.Found
		more  bool
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	fetch := func(after string, want int) <-chan keys {
		c := make(chan keys, 1)
		wg.Go(func() {
			found, more, err := n.page(ctx, core.Scan{
				Bucket: bucket.ID, Space: core.SpaceObject, Prefix: prefix, AfterKey: after, KeysOnly: namesOnly && !bucket.Name.Remote(),
			}, want, true)
			c <- keys{found, more, err}
		})
		return c
	}
	want := firstPage
	for next := fetch(after, want); next != nil; {
		page := <-next
		if page.err != nil {
			yield("", nil, page.err)
			return
		}
		next = nil
		if page.more {
			want = min(2*want, fullPage)
			next = fetch(page.found[len(page.found)-1].Key, want)
		}
		for i := range page.found {
			rec := &core.Record{}
			if !namesOnly || bucket.Name.Remote() {
				var err error
				if rec, err = core.DecodeRecord(page.found[i].Value); err != nil {
					yield("", nil, fmt.Errorf("record of %q: %w", page.found[i].Key, err))
					return
				}
			}
			if rec.MetadataOnly() {
				continue
			}
			if !yield(page.found[i].Key, rec, nil) {
				return
			}
		}
	}
}
