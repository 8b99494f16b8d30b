package apitest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memobjects"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/server"
)

// Buckets are the buckets of the cluster and the remote ones behind it.
type Buckets struct {
	objects *memobjects.Store

	mu      sync.Mutex
	remote  map[core.BucketName][]api.Object
	reach   map[core.BucketName]core.RemoteSettings
	refused map[core.BucketName]*api.Error
}

// Refuse makes a remote bucket inaccessible; nil makes it accessible again.
func (b *Buckets) Refuse(name core.BucketName, why *api.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused[name] = why
}

// Part makes a part of a remote object present.
func (b *Buckets) Part(name core.BucketName, key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remote[name] = slices.Clone(b.remote[name])
	for i := range b.remote[name] {
		if o := &b.remote[name][i]; o.Name == key {
			o.Part = true
		}
	}
}

func (b *Buckets) refusal(name core.BucketName) *api.Error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused[name]
}

// AddRemote makes a remote bucket with objects, none of which is present.
func (b *Buckets) AddRemote(name core.BucketName, objects ...api.Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remote[name] = objects
}

func (b *Buckets) remoteOf(name core.BucketName) ([]api.Object, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list, ok := b.remote[name]
	return list, ok
}

func (b *Buckets) find(ctx context.Context, name core.BucketName) (core.Bucket, error) {
	list, err := b.objects.Buckets(ctx)
	if err != nil {
		return core.Bucket{}, err
	}
	for _, known := range list {
		if known.Name == name {
			b.mu.Lock()
			defer b.mu.Unlock()
			known.Remote = b.reach[name]
			return known, nil
		}
	}
	return core.Bucket{}, fmt.Errorf("%s: %w", name, core.ErrNoSuchBucket)
}

// Buckets implements server.BucketService.
func (b *Buckets) Buckets(ctx context.Context, provider core.Provider, all bool) (api.Buckets, error) {
	list, err := b.objects.Buckets(ctx)
	if err != nil {
		return api.Buckets{}, err
	}
	var out []api.Bucket
	seen := make(map[core.BucketName]bool)
	for _, known := range list {
		seen[known.Name] = true
		if provider == "" || known.Name.Provider == provider {
			out = append(out, api.BucketOf(known))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range b.remote {
		if all && !seen[name] && (provider == "" || name.Provider == provider) {
			out = append(out, api.Bucket{URI: name.String(), Provider: name.Provider, Name: name.Name})
		}
	}
	slices.SortFunc(out, func(a, b api.Bucket) int { return strings.Compare(a.URI, b.URI) })
	return api.Buckets{Buckets: out}, nil
}

// Bucket implements server.BucketService.
func (b *Buckets) Bucket(ctx context.Context, name core.BucketName) (api.Bucket, error) {
	known, err := b.find(ctx, name)
	if errors.Is(err, core.ErrNoSuchBucket) && name.Provider != core.Shoal {
		return b.CreateBucket(ctx, name, api.CreateBucket{IfAbsent: true})
	}
	return api.BucketOf(known), err
}

// Resolve implements server.BucketService. /srv/data is the root "data", and all
// below it without a dot in its name a directory.
func (b *Buckets) Resolve(_ context.Context, uri string) (api.Resolved, error) {
	u, err := core.ResolveURI(uri, map[string]string{"data": "/srv/data"})
	if strings.HasPrefix(uri, "file:///") && u.Key != "" && !strings.Contains(u.Key, ".") {
		u.Key += "/"
	}
	return api.Resolved{URI: u.String()}, err
}

// CreateBucket implements server.BucketService.
func (b *Buckets) CreateBucket(ctx context.Context, name core.BucketName, in api.CreateBucket) (api.Bucket, error) {
	if known, err := b.find(ctx, name); err == nil {
		if in.IfAbsent {
			return api.BucketOf(known), nil
		}
		return api.Bucket{}, fmt.Errorf("%s: %w", name, core.ErrExists)
	}
	if why := b.refusal(name); why != nil {
		return api.Bucket{}, why
	}
	switch _, ok := b.remoteOf(name); {
	case name.Provider == core.Shoal, ok:
	case !in.Create:
		return api.Bucket{}, &api.Error{Code: api.CodeNoSuchBucket, Message: name.String() + ": no such bucket"}
	default:
		b.AddRemote(name)
	}
	policy := in.Props.Apply(core.Policy{Scheme: core.Mirror(2), Domain: core.DomainNode, Inline: 128 << 10, ETag: "md5"})
	settings := in.Props.ApplyRemote(core.RemoteSettings{})
	if err := settings.Validate(name.Provider); err != nil {
		return api.Bucket{}, err
	}
	made, err := b.objects.CreateBucket(ctx, name, &policy, in.Alias)
	if err != nil {
		return api.Bucket{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reach == nil {
		b.reach = make(map[core.BucketName]core.RemoteSettings)
	}
	b.reach[name], made.Remote = settings, settings
	return api.BucketOf(made), nil
}

// SetBucket implements server.BucketService. It checks the request only.
func (b *Buckets) SetBucket(ctx context.Context, name core.BucketName, in api.SetBucket) (api.Bucket, error) {
	known, err := b.find(ctx, name)
	if err != nil {
		return api.Bucket{}, err
	}
	known.Policy, known.Remote = in.Props.Apply(known.Policy), in.Props.ApplyRemote(known.Remote)
	if err := known.Remote.Validate(name.Provider); err != nil {
		return api.Bucket{}, err
	}
	if in.Alias != "" {
		known.Alias = in.Alias
	}
	return api.BucketOf(known), nil
}

// DeleteBucket implements server.BucketService.
func (b *Buckets) DeleteBucket(ctx context.Context, name core.BucketName) error {
	known, err := b.find(ctx, name)
	if err != nil {
		return err
	}
	if name.Provider != core.Shoal {
		if err := b.drop(ctx, known); err != nil {
			return err
		}
	}
	return b.objects.DeleteBucket(ctx, known.Alias)
}

// drop drops the copies that a remote bucket has here.
func (b *Buckets) drop(ctx context.Context, known core.Bucket) error {
	page, err := b.objects.List(ctx, known, core.ListOptions{Max: 1000})
	for _, o := range page.Objects {
		err = errors.Join(err, b.objects.Delete(ctx, known, o.Key, core.Conditions{}, core.NewRequestID()))
	}
	return err
}

// Summary implements server.BucketService.
func (b *Buckets) Summary(ctx context.Context, name core.BucketName, o server.SummaryOptions, tell func(api.SummaryPart)) (api.Summary, error) {
	s := api.Summary{Bucket: name.String(), Accessible: true}
	if _, err := b.Bucket(ctx, name); err != nil {
		if errors.As(err, &s.Reason) {
			s.Accessible = false
			return s, nil
		}
		return s, err
	}
	for object, err := range b.Objects(ctx, name, server.ListOptions{Presence: api.Cached}) {
		if err != nil {
			return s, err
		}
		if o.After == "" {
			s.Present = s.Present.Add(api.Amount{Objects: 1, Bytes: object.Size})
		}
	}
	list, ok := b.remoteOf(name)
	if !ok || o.Presence == api.Cached {
		return s, nil
	}
	if s.Reason = b.refusal(name); s.Reason != nil {
		s.Accessible = false
		return s, nil
	}
	s.Remote = new(api.Amount)
	for _, object := range list {
		if object.Name <= o.After && o.After != "" {
			continue
		}
		sum := s.Remote.Add(api.Amount{Objects: 1, Bytes: object.Size})
		s.Remote = &sum
		tell(api.SummaryPart{Summary: s, After: object.Name})
	}
	return s, nil
}

// Objects implements server.BucketService.
func (b *Buckets) Objects(ctx context.Context, name core.BucketName, o server.ListOptions) iter.Seq2[api.Object, error] {
	return func(yield func(api.Object, error) bool) {
		all, err := b.collect(ctx, name, o.Presence == api.Cached)
		if err != nil {
			yield(api.Object{}, err)
			return
		}
		n := 0
		for _, object := range all {
			wanted := o.Presence == api.AnyPresence || (object.Cached || object.Part) == (o.Presence == api.Cached)
			if object.Name <= o.After && o.After != "" || !strings.HasPrefix(object.Name, o.Prefix) || !wanted {
				continue
			}
			if n++; o.Max > 0 && n > o.Max {
				return
			}
			if !yield(object, nil) {
				return
			}
		}
	}
}

// collect merges what is present with what is remote.
func (b *Buckets) collect(ctx context.Context, name core.BucketName, present bool) ([]api.Object, error) {
	list, remote := b.remoteOf(name)
	byName := make(map[string]api.Object)
	for _, o := range list {
		byName[o.Name] = o
	}
	if _, err := b.Bucket(ctx, name); err != nil {
		return nil, err
	}
	if why := b.refusal(name); remote && why != nil && !present {
		return nil, why
	}
	known, err := b.find(ctx, name)
	for after := ""; err == nil; {
		page, pageErr := b.objects.List(ctx, known, core.ListOptions{After: after, Max: 1000})
		if pageErr != nil {
			return nil, pageErr
		}
		for _, o := range page.Objects {
			byName[o.Key] = api.Object{Name: o.Key, Size: o.Size, ETag: o.ETag, Cached: true, Modified: o.Modified}
		}
		if !page.More {
			break
		}
		after = page.Next
	}
	if err != nil {
		return nil, err
	}
	out := make([]api.Object, 0, len(byName))
	for _, o := range byName {
		out = append(out, o)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}
