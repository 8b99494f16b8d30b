package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
)

// A job that follows deletions walks what it may have to remove in step with the
// remote's listing: to each page come the keys, between its ends, that the remote does
// not name, as items that are gone. Whoever works on such an item asks the remote
// again before anything goes.

const (
	// goneAtOnce bounds how many keys that are gone are added to a page.
	goneAtOnce = 1000
	// lookAtOnce is how many objects of a destination are looked at together.
	lookAtOnce = 16
)

// checkSync refuses --latest and --sync where they mean nothing.
func (s *Spec) checkSync() error {
	if !s.Latest && !s.Sync {
		return nil
	}
	u, err := core.ParseURI(s.From)
	remote := err == nil && u.Bucket.Remote()
	switch {
	case s.Kind == KindETL && s.Sync:
		return fmt.Errorf("etl: a transform names its results itself, one or many of an object, so that nobody knows which of them --sync would have to remove for an object that is gone; "+
			"use --latest, and `shoal start prefetch --sync` to drop copies of what is gone: %w", core.ErrInvalid)
	case s.Kind != KindCopy && s.Kind != KindPrefetch && s.Kind != KindETL:
		return fmt.Errorf("%s: --latest and --sync are for copies, transforms (--latest) and prefetch: %w", s.Kind, core.ErrInvalid)
	case s.Sync && !remote:
		return fmt.Errorf("--sync follows what a remote source deletes; %s is none: %w", s.From, core.ErrInvalid)
	case s.Sync && len(s.Ext) > 0:
		return fmt.Errorf("--sync and --ext: several names may become one, so that none can be removed for another: %w", core.ErrInvalid)
	}
	return nil
}

// checkNoCache refuses --no-cache where there is nothing to keep, or where to keep it is
// what the job is for.
func (s *Spec) checkNoCache() error {
	remote := func(uri string) bool {
		u, err := core.ParseURI(uri)
		return err == nil && u.Bucket.Remote()
	}
	switch {
	case !s.NoCache:
		return nil
	case s.Kind != KindCopy:
		return fmt.Errorf("%s: --no-cache is for copies: %w", s.Kind, core.ErrInvalid)
	case !remote(s.From) && !remote(s.To):
		return fmt.Errorf("--no-cache is about buckets of remotes; neither %s nor %s is one: %w", s.From, s.To, core.ErrInvalid)
	}
	return nil
}

// asks says whether the job asks the remote about objects that no listing has told of.
func (s *Spec) asks() bool {
	u, err := core.ParseURI(s.From)
	return (s.Latest || s.Sync) && err == nil && u.Bucket.Remote()
}

// lister is how pages of a listing are got.
type lister func(ctx context.Context, after string, limit int) (rangeEvent, error)

// withGone adds to pages what is gone.
func (rr *rangeRun) withGone(from core.Bucket, list lister) lister {
	return func(ctx context.Context, after string, limit int) (rangeEvent, error) {
		e, err := list(ctx, after, limit)
		if err != nil || limit == 1 { // which only asks whether there is more
			return e, err
		}
		until := ""
		if e.more {
			until = e.next
		}
		w := &goneWalk{r: rr.r, after: after, until: until, names: e.items}
		if err := w.run(ctx, from); err != nil {
			return e, err
		}
		e.items = append(e.items, w.found...)
		slices.SortFunc(e.items, func(a, b item) int { return strings.Compare(a.Key, b.Key) })
		if w.full {
			// What is behind the last one is for the next page.
			e.more, e.next = true, w.last
			k, _ := slices.BinarySearchFunc(e.items, e.next+"\x00", func(it item, key string) int { return strings.Compare(it.Key, key) })
			e.items = e.items[:k]
		}
		return e, nil
	}
}

// goneWalk looks for what is gone between two keys of the source, until being "" at
// the end, where the remote has names.
type goneWalk struct {
	r            *run
	after, until string
	names        []item
	found        []item
	last         string // that was found
	full         bool   // there may be others behind last
}

// take is given keys of the source, in order, and returns false to end.
func (w *goneWalk) take(key string, size int64) bool {
	switch {
	case w.until != "" && key > w.until:
		return false
	case len(w.found) == goneAtOnce:
		w.full = true
		return false
	}
	for len(w.names) > 0 && w.names[0].Key < key {
		w.names = w.names[1:]
	}
	if key > w.after && w.r.sel.takes(key) && (len(w.names) == 0 || w.names[0].Key != key) {
		w.found, w.last = append(w.found, item{Key: key, Size: size, Gone: true}), key
	}
	return true
}

func (w *goneWalk) run(ctx context.Context, from core.Bucket) error {
	s := w.r.spec
	if s.Kind == KindPrefetch {
		return w.here(ctx, from, "")
	}
	if s.DryRun && s.ToID == 0 {
		return nil // what a real run would create has nothing yet
	}
	to := w.r.m.o.Node.Map().Bucket(s.ToID)
	if to == nil {
		return fmt.Errorf("bucket %s: %w", s.To, core.ErrNoSuchBucket)
	}
	walk := w.here
	if to.Name.Remote() {
		walk = w.there
	}
	if err := walk(ctx, *to, s.Prepend); err != nil {
		return err
	}
	return w.ours(ctx, *to)
}

// here goes over what the cluster has of a bucket.
func (w *goneWalk) here(ctx context.Context, b core.Bucket, prepend string) error {
	var failed error
	w.r.m.o.Node.ListAll(ctx, b, prepend+w.r.spec.Prefix, prepend+w.after, false, func(key string, rec *core.Record, err error) bool {
		if failed = err; err != nil {
			return false
		}
		return w.take(strings.TrimPrefix(key, prepend), rec.StoredBytes())
	})
	return failed
}

// there goes over what a remote has.
func (w *goneWalk) there(ctx context.Context, b core.Bucket, prepend string) error {
	n := w.r.m.o.Node
	most, err := n.CanList(b)
	if err != nil {
		return err
	}
	if most == 0 {
		most = pageSize
	}
	for at := prepend + w.after; ; {
		l, err := n.ListSource(ctx, b, core.RemoteListOptions{Prefix: prepend + w.r.spec.Prefix, After: at, Max: most})
		if err != nil {
			return fmt.Errorf("listing the destination %s behind %q: %w", b.Name, at, err)
		}
		for i := range l.Objects {
			if !w.take(strings.TrimPrefix(l.Objects[i].Key, prepend), l.Objects[i].Size) {
				return nil
			}
		}
		if at = l.Next; !l.More {
			return nil
		}
	}
}

// ours leaves, of what is at a destination, what was copied there.
func (w *goneWalk) ours(ctx context.Context, to core.Bucket) error {
	r := w.r
	var mu sync.Mutex
	ours := map[string]bool{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lookAtOnce)
	for _, it := range w.found {
		g.Go(func() error {
			dest := r.spec.destKey(it.Key)
			id, err := r.m.o.Node.CopiedBy(ctx, to, dest)
			if err == nil && r.wrote(ctx, id) {
				mu.Lock()
				defer mu.Unlock()
				ours[it.Key] = true
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	w.found = slices.DeleteFunc(w.found, func(it item) bool { return !ours[it.Key] })
	return nil
}

// wrote says whether a job copied as this one does, so that what it wrote stands for a
// name of this one's source. One that nobody remembers did not.
func (r *run) wrote(ctx context.Context, id string) bool {
	if id == "" || id == r.spec.ID {
		return id != ""
	}
	s, _, _, _, ok := r.m.snapshot(id)
	if !ok {
		if r.m.fetch(ctx, id) != nil {
			return false
		}
		s, _, _, _, ok = r.m.snapshot(id)
	}
	return ok && s.Kind == KindCopy && s.From == r.spec.From && s.To == r.spec.To && s.Prepend == r.spec.Prepend && len(s.Ext) == 0
}

// following has an action ask the remote first where that has not told what it has:
// for the version, and whether the object is gone.
func (r *run) following(from core.Bucket, to *core.Bucket, act listedAction) listedAction {
	if !r.spec.asks() {
		return act
	}
	return func(ctx context.Context, it *item) (result, int64, error) {
		if !it.Gone && it.Version != "" {
			return act(ctx, it)
		}
		n := r.m.o.Node
		info, err := n.Objects().Head(ctx, from, it.Key, core.GetOptions{Latest: true, Sync: r.spec.Sync})
		if err == nil {
			is := *it
			is.Gone, is.Size = false, info.Size
			if info.Remote != nil {
				is.Version = info.Remote.Version
			}
			return act(ctx, &is)
		}
		if !errors.Is(err, core.ErrNotFound) {
			return result{}, it.Size, err
		}
		removed := it.Gone && to == nil // by the question itself
		if r.spec.Sync && to != nil {
			if removed, err = r.removeCopy(ctx, from, *to, it.Key); err != nil {
				return result{}, it.Size, err
			}
		}
		if removed {
			return result{end: endDropped}, it.Size, nil
		}
		return result{end: endSkipped, why: Error{Code: codeSkipped, Message: "the remote does not have it"}}, it.Size, nil
	}
}

// removeCopy removes what an earlier copy wrote, if the source is gone for sure.
func (r *run) removeCopy(ctx context.Context, from, to core.Bucket, key string) (bool, error) {
	gone, err := r.m.o.Node.Gone(ctx, from, key)
	if err != nil || !gone {
		return false, err
	}
	dest := r.spec.destKey(key)
	return r.m.o.Node.RemoveCopy(ctx, to, dest, func(id string) bool { return r.wrote(ctx, id) })
}
