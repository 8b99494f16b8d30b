package nodeserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/plugins/api"
	apiserver "github.com/shoalstore/shoal/plugins/api/server"
)

// bucketService is api/server's view of buckets.
type bucketService struct{ s *server }

func (b bucketService) objects() *engine.Objects { return b.s.node.Objects() }

// Buckets is part of apiserver.BucketService.
func (b bucketService) Buckets(ctx context.Context, provider core.Provider, all bool) (api.Buckets, error) {
	known, err := b.objects().Buckets(ctx)
	if err != nil {
		return api.Buckets{}, err
	}
	out := api.Buckets{Buckets: []api.Bucket{}}
	seen := map[core.BucketName]bool{}
	for _, x := range known {
		if (provider == "" || x.Name.Provider == provider) && !x.Name.System() {
			out.Buckets = append(out.Buckets, api.BucketOf(x))
			seen[x.Name] = true
		}
	}
	if all {
		for _, l := range b.s.listAccounts(ctx, provider) {
			if l.err != nil {
				out.Unlisted = append(out.Unlisted, l.err)
			}
			for _, name := range l.buckets {
				if !seen[name] {
					seen[name] = true
					out.Buckets = append(out.Buckets, api.Bucket{URI: name.String(), Provider: name.Provider, Name: name.Name})
				}
			}
		}
	}
	slices.SortFunc(out.Buckets, func(a, b api.Bucket) int { return cmp.Compare(a.URI, b.URI) })
	return out, nil
}

// Bucket is part of apiserver.BucketService.
func (b bucketService) Bucket(ctx context.Context, name core.BucketName) (api.Bucket, error) {
	x, err := b.use(ctx, name)
	return api.BucketOf(x), err
}

// use finds a bucket. A remote one that is not known yet is added if it is
// accessible.
func (b bucketService) use(ctx context.Context, name core.BucketName) (core.Bucket, error) {
	if name.System() {
		return core.Bucket{}, noSuchBucket(name.String())
	}
	x, err := b.objects().BucketNamed(ctx, name)
	if !errors.Is(err, core.ErrNoSuchBucket) || !name.Remote() {
		return x, err
	}
	policy := b.s.node.PolicyFor(nil)
	policy.LRU = true // the remote has all of it
	x, err = b.add(ctx, core.Bucket{Name: name, Policy: policy}, false)
	if errors.Is(err, core.ErrExists) {
		// Somebody else was first, unless it is the alias that exists.
		if have, again := b.objects().BucketNamed(ctx, name); again == nil {
			return have, nil
		}
	}
	return x, err
}

// add adds a remote bucket once it has answered. With create it is made at the
// remote if it is not there.
func (b bucketService) add(ctx context.Context, row core.Bucket, create bool) (core.Bucket, error) {
	settings, err := b.s.reach(ctx, row.Name, row.Remote, create)
	if err != nil {
		return core.Bucket{}, err
	}
	row.Remote = settings
	x, err := b.objects().AddBucket(ctx, row)
	if errors.Is(err, core.ErrExists) {
		err = &api.Error{Code: api.CodeExists, Message: err.Error(), Hint: "another S3 name: shoal bucket create " + row.Name.String() + " --alias NAME"}
	}
	return x, err
}

// CreateBucket is part of apiserver.BucketService.
func (b bucketService) CreateBucket(ctx context.Context, name core.BucketName, in api.CreateBucket) (api.Bucket, error) {
	if err := reserved(name, in.Alias); err != nil {
		return api.Bucket{}, err
	}
	policy := b.s.node.PolicyFor(in.Props.Scheme)
	policy.LRU = name.Remote()
	policy = in.Props.Apply(policy)
	settings := in.Props.ApplyRemote(core.RemoteSettings{})
	if err := settings.Validate(name.Provider); err != nil {
		return api.Bucket{}, fmt.Errorf("bucket %s: %w", name, err)
	}
	x, err := b.objects().BucketNamed(ctx, name)
	switch {
	case err == nil && in.IfAbsent:
		return api.BucketOf(x), nil
	case err == nil:
		return api.BucketOf(x), fmt.Errorf("bucket %s: %w", name, core.ErrExists)
	case !errors.Is(err, core.ErrNoSuchBucket):
		return api.Bucket{}, err
	case name.Remote():
		x, err = b.add(ctx, core.Bucket{Name: name, Alias: in.Alias, Policy: policy, Remote: settings}, in.Create)
	default:
		x, err = b.objects().CreateBucket(ctx, name, &policy, in.Alias)
	}
	if errors.Is(err, core.ErrExists) && in.IfAbsent {
		if have, again := b.objects().BucketNamed(ctx, name); again == nil {
			x, err = have, nil
		}
	}
	return api.BucketOf(x), err
}

// SetBucket is part of apiserver.BucketService.
func (b bucketService) SetBucket(ctx context.Context, name core.BucketName, in api.SetBucket) (api.Bucket, error) {
	if err := reserved(name, in.Alias); err != nil {
		return api.Bucket{}, err
	}
	x, err := b.use(ctx, name)
	if err != nil {
		return api.Bucket{}, err
	}
	if settings := in.Props.ApplyRemote(x.Remote); settings != x.Remote {
		if err := settings.Validate(name.Provider); err != nil {
			return api.Bucket{}, fmt.Errorf("bucket %s: %w", name, err)
		}
		if err := b.s.head(ctx, name, settings, accessTries); err != nil {
			return api.Bucket{}, remoteError(name, err) // they would make it inaccessible
		}
	}
	x, err = b.objects().SetBucket(ctx, x.ID, func(x *core.Bucket) {
		x.Policy, x.Remote = in.Props.Apply(x.Policy), in.Props.ApplyRemote(x.Remote)
		if in.Alias != "" {
			x.Alias = in.Alias
		}
	})
	return api.BucketOf(x), err
}

// DeleteBucket is part of apiserver.BucketService.
func (b bucketService) DeleteBucket(ctx context.Context, name core.BucketName) error {
	if name.System() {
		return noSuchBucket(name.String())
	}
	x, err := b.objects().BucketNamed(ctx, name)
	if err != nil {
		return err
	}
	return b.objects().DeleteBucket(ctx, x.Alias)
}

// Objects is part of apiserver.BucketService.
func (b bucketService) Objects(ctx context.Context, name core.BucketName, o apiserver.ListOptions) iter.Seq2[api.Object, error] {
	return func(yield func(api.Object, error) bool) {
		x, err := b.use(ctx, name)
		switch {
		case err != nil:
			yield(api.Object{}, err)
		case !name.Remote() && o.Presence == api.NotCached: // all is present
		case !name.Remote() || o.Presence == api.Cached:
			b.present(ctx, x, o, yield)
		default:
			b.remote(ctx, x, o, yield)
		}
	}
}

// present lists what the cluster has.
func (b bucketService) present(ctx context.Context, x core.Bucket, o apiserver.ListOptions, yield func(api.Object, error) bool) {
	b.s.node.ListAll(ctx, x, o.Prefix, o.After, o.NamesOnly, func(key string, rec *core.Record, err error) bool {
		if err != nil {
			yield(api.Object{}, err)
			return false
		}
		if o.NamesOnly {
			return yield(api.Object{Name: key, Cached: true}, nil)
		}
		whole := rec.Whole()
		return yield(api.Object{Name: key, Size: rec.Size, ETag: rec.ETag, Cached: whole, Part: !whole, Modified: rec.Modified}, nil)
	})
}

// remote lists what the remote has, and says what of it is present. The next page
// is fetched while one is delivered.
func (b bucketService) remote(ctx context.Context, x core.Bucket, o apiserver.ListOptions, yield func(api.Object, error) bool) {
	k, err := b.s.backend(x.Name, x.Remote)
	if err != nil {
		yield(api.Object{}, remoteError(x.Name, err))
		return
	}
	most := max(k.Abilities().PageSize, 1)
	if o.Max > 0 && o.Presence == api.AnyPresence {
		most = min(most, o.Max)
	}
	type answer struct {
		page engine.RemotePage
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	fetch := func(after string) <-chan answer {
		c := make(chan answer, 1)
		wg.Go(func() {
			ctx, cancel := withPatience(ctx)
			defer cancel()
			page, err := b.s.node.ListRemote(ctx, x, core.RemoteListOptions{Prefix: o.Prefix, After: after, Max: most})
			c <- answer{page, err}
		})
		return c
	}
	left := o.Max
	for next := fetch(o.After); next != nil; {
		a := <-next
		if a.err != nil {
			yield(api.Object{}, remoteError(x.Name, a.err))
			return
		}
		next = nil
		if a.page.More && (o.Max == 0 || left > len(a.page.Objects) || o.Presence != api.AnyPresence) {
			next = fetch(a.page.Next)
		}
		for i := range a.page.Objects {
			r := &a.page.Objects[i]
			if o.Presence == api.NotCached && r.Presence != engine.NotPresent {
				continue
			}
			if !yield(api.Object{
				Name: r.Key, Size: r.Size, ETag: r.ETag, Modified: r.Modified, Cached: r.Presence == engine.Whole, Part: r.Presence == engine.InPart,
			}, nil) {
				return
			}
			left--
		}
	}
}
