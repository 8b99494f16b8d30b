package engine

import (
	"context"

	"github.com/shoalstore/shoal/core"
)

// Presence says how much of a remote object is present.
type Presence int

// The presences. Of an object of which only the metadata is here nothing is
// present.
const (
	NotPresent Presence = iota
	InPart
	Whole
)

// String is the word that users see.
func (p Presence) String() string {
	switch p {
	case Whole:
		return "yes"
	case InPart:
		return "part"
	}
	return "no"
}

// PresenceOf says how much of a record's object is present.
func PresenceOf(rec *core.Record) Presence {
	switch {
	case rec == nil || rec.MetadataOnly():
		return NotPresent
	case rec.Whole():
		return Whole
	}
	return InPart
}

// RemoteEntry is an object of a remote listing.
type RemoteEntry struct {
	core.RemoteObject
	Presence Presence
}

// RemotePage is a page of a remote's listing, with what of it is present.
type RemotePage struct {
	Objects  []RemoteEntry
	Prefixes []string
	// More says that the listing goes on after Next.
	More bool
	Next string
}

// ListRemote lists a page of what the remote of a bucket has, and says beside
// each object whether it is present.
func (n *Node) ListRemote(ctx context.Context, bucket core.Bucket, o core.RemoteListOptions) (RemotePage, error) {
	l, err := n.listRemote(ctx, &bucket, o)
	if err != nil {
		return RemotePage{}, err
	}
	out := RemotePage{Prefixes: l.Prefixes, More: l.More, Next: l.Next, Objects: make([]RemoteEntry, len(l.Objects))}
	for i := range l.Objects {
		out.Objects[i].RemoteObject = l.Objects[i]
	}
	return out, n.markPresent(ctx, &bucket, &o, out.Objects)
}

func (n *Node) listRemote(ctx context.Context, bucket *core.Bucket, o core.RemoteListOptions) (core.RemoteListing, error) {
	b, err := n.remote(bucket)
	if err != nil {
		return core.RemoteListing{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, remotePatience, errSilentRemote)
	defer cancel()
	l, err := b.client.List(ctx, b.name, o)
	return l, remoteError(ctx, err)
}

// markPresent goes over the cluster's own keys in the range of a page.
func (n *Node) markPresent(ctx context.Context, bucket *core.Bucket, o *core.RemoteListOptions, page []RemoteEntry) error {
	if len(page) == 0 {
		return nil
	}
	at := make(map[string]*RemoteEntry, len(page))
	last := page[len(page)-1].Key
	for i := range page {
		at[page[i].Key] = &page[i]
	}
	l := &lister{node: n, bucket: bucket, after: o.After, before: last + "\x00"}
	l.opt = core.ListOptions{Prefix: o.Prefix, Delimiter: o.Delimiter, Max: len(page) + 1}
	for {
		if err := l.run(ctx); err != nil {
			return err
		}
		for i := range l.out.Objects {
			if e := at[l.out.Objects[i].Key]; e != nil {
				e.Presence = l.presence[i]
			}
		}
		if !l.out.More {
			return nil
		}
		l.out, l.presence = core.Listing{}, nil
	}
}

// listPage is List of a remote bucket.
func (n *Node) listPage(ctx context.Context, bucket *core.Bucket, opt core.ListOptions) (core.Listing, error) {
	l, err := n.listRemote(ctx, bucket, core.RemoteListOptions{Prefix: opt.Prefix, Delimiter: opt.Delimiter, After: opt.After, Max: opt.Max})
	if err != nil {
		return core.Listing{}, err
	}
	out := core.Listing{Prefixes: l.Prefixes, More: l.More, Next: l.Next, Objects: make([]core.ObjectInfo, len(l.Objects))}
	for i := range l.Objects {
		rec := recordOfRemote(&l.Objects[i], bucket.Policy.Scheme)
		out.Objects[i] = info(bucket, l.Objects[i].Key, &rec, core.Version{})
	}
	return out, nil
}
