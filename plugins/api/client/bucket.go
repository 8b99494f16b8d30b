package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// Buckets lists the buckets of a provider ("" is every one) that the cluster
// knows.
func (c *Client) Buckets(ctx context.Context, provider core.Provider) ([]api.Bucket, error) {
	out, err := c.buckets(ctx, provider, false)
	return out.Buckets, err
}

// AllBuckets lists them with the remote ones that the cluster could use.
func (c *Client) AllBuckets(ctx context.Context, provider core.Provider) (api.Buckets, error) {
	return c.buckets(ctx, provider, true)
}

func (c *Client) buckets(ctx context.Context, provider core.Provider, all bool) (out api.Buckets, err error) {
	r := request{method: http.MethodGet, path: api.BucketsPath, query: url.Values{}}
	if provider != "" {
		r.query.Set("provider", string(provider))
	}
	if all {
		r.query.Set("all", "true")
		r.patience = time.Minute
	}
	_, err = c.call(ctx, r, nil, &out)
	return out, err
}

// Bucket describes a bucket. A remote one that the cluster does not know yet is
// taken into use, if it is accessible.
func (c *Client) Bucket(ctx context.Context, b core.BucketName) (out api.Bucket, err error) {
	_, err = c.call(ctx, request{method: http.MethodGet, path: api.BucketPath(b)}, nil, &out)
	return out, err
}

// Resolve has the cluster read a URI, see [api.Resolved].
func (c *Client) Resolve(ctx context.Context, uri string) (core.URI, error) {
	var out api.Resolved
	r := request{method: http.MethodGet, path: api.ResolvePath, query: url.Values{"uri": {uri}}}
	if _, err := c.call(ctx, r, nil, &out); err != nil {
		return core.URI{}, err
	}
	return core.ParseURI(out.URI)
}

// CreateBucket creates a bucket. When the creation had to be repeated and the
// bucket is there then, it is taken for the one that was created.
func (c *Client) CreateBucket(ctx context.Context, b core.BucketName, in api.CreateBucket) (out api.Bucket, err error) {
	repeated, err := c.call(ctx, request{method: http.MethodPut, path: api.BucketPath(b), patience: time.Minute}, in, &out)
	if repeated && errors.Is(err, core.ErrExists) {
		return c.Bucket(ctx, b)
	}
	return out, err
}

// SetBucket changes a bucket's properties and alias.
func (c *Client) SetBucket(ctx context.Context, b core.BucketName, in api.SetBucket) (out api.Bucket, err error) {
	_, err = c.call(ctx, request{method: http.MethodPatch, path: api.BucketPath(b), patience: time.Minute}, in, &out)
	return out, err
}

// DeleteBucket removes an empty bucket; a remote one, whatever it holds, only
// from the cluster.
func (c *Client) DeleteBucket(ctx context.Context, b core.BucketName) error {
	repeated, err := c.call(ctx, request{method: http.MethodDelete, path: api.BucketPath(b), patience: 10 * time.Minute}, nil, nil)
	return goneIf(repeated, err)
}

// goneIf takes the absence of what a repeated request was to remove for
// success.
func goneIf(repeated bool, err error) error {
	if repeated && errors.Is(err, core.ErrNotFound) {
		return nil
	}
	return err
}

// ListOptions say what to list.
type ListOptions struct {
	Prefix string
	// After leaves out all names that are not above it.
	After    string
	Max      int // 0 is no bound
	Presence api.Presence
	// NamesOnly leaves everything else unset, and is faster.
	NamesOnly bool
}

// List lists the objects of a bucket in order of name. When a node dies it goes
// on behind the last name with another. An error ends the sequence.
func (c *Client) List(ctx context.Context, b core.BucketName, o ListOptions) iter.Seq2[api.Object, error] {
	return func(yield func(api.Object, error) bool) {
		l := listing{c: c, bucket: b, o: o, yield: yield}
		if err := l.run(ctx); err != nil {
			yield(api.Object{}, err)
		}
	}
}

// listing is a listing under way; o.After and o.Max move with it.
type listing struct {
	c      *Client
	bucket core.BucketName
	o      ListOptions
	yield  func(api.Object, error) bool
	ended  bool
	passed int64
}

func (l *listing) run(ctx context.Context) error {
	since := l.c.o.Clock.Boot()
	delay := newBackOff()
	for !l.ended {
		passed := l.passed
		err := l.stream(ctx)
		if err == nil {
			continue
		}
		what := "list " + l.bucket.String()
		var own *api.Error
		switch {
		case ctx.Err() != nil:
			return interrupted(ctx, what, err)
		case errors.As(err, &own) && own.Code != api.CodeUnavailable, errors.Is(err, core.ErrUnavailable):
			return err
		}
		if l.passed > passed {
			since = l.c.o.Clock.Boot()
			delay.Reset()
		}
		if silent := l.c.o.Clock.Boot().Sub(since); silent > l.c.o.RetryFor {
			return gaveUp(what, silent, err)
		}
		l.c.o.Log.Debug("listing broke off, going on", "bucket", l.bucket.String(), "after", l.o.After, "err", err)
		if l.c.o.Clock.Wait(ctx, delay.NextBackOff()) != nil {
			return interrupted(ctx, what, err)
		}
	}
	return nil
}

// errBroken marks a listing that the server could not go on with.
type errBroken struct{ err *api.Error }

func (e errBroken) Error() string { return e.err.Error() }

// stream reads one answer.
func (l *listing) stream(ctx context.Context) error {
	q := url.Values{}
	for name, value := range map[string]string{"prefix": l.o.Prefix, "after": l.o.After, "presence": string(l.o.Presence)} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if l.o.Max > 0 {
		q.Set("max", strconv.Itoa(l.o.Max))
	}
	if l.o.NamesOnly {
		q.Set("names", "true")
	}
	resp, _, err := l.c.do(ctx, &request{method: http.MethodGet, path: api.ObjectsPath(l.bucket), query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r := api.NewListReader(resp.Body)
	for {
		var o api.Object
		end, err := r.Next(&o)
		switch {
		case err != nil:
			return err
		case end != nil:
			return l.end(end)
		case o.Name <= l.o.After && l.o.After != "":
			return fmt.Errorf("listing out of order: %q after %q", o.Name, l.o.After)
		}
		l.o.After = o.Name
		l.passed++
		if !l.yield(o, nil) {
			l.ended = true
			return nil
		}
		if l.o.Max > 0 {
			if l.o.Max--; l.o.Max == 0 {
				l.ended = true
				return nil
			}
		}
	}
}

func (l *listing) end(end *api.ListEnd) error {
	switch {
	case end.Error != nil && end.Error.Code == api.CodeUnavailable:
		return errBroken{end.Error}
	case end.Error != nil:
		return end.Error
	}
	l.ended = !end.More
	return nil
}
