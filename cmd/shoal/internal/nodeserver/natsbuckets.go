package nodeserver

import (
	"context"
	"fmt"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	apiserver "github.com/shoalstore/shoal/plugins/api/server"
)

// bucketSubjects are the requests about buckets; the answers are as over HTTP.
func (s *server) bucketSubjects() bus.Service {
	b := bucketService{s}
	return bus.Service{
		Name: "shoal-bucket", Version: serviceVersion, Description: "List, show, create, set, remove and count buckets",
		Metadata: map[string]string{"node": s.cfg.Node.Name},
		Endpoints: []bus.Endpoint{
			{Name: "list", Subject: "shoal.bucket.list", Handler: jsonHandler(func(ctx context.Context, r bucketsRequest) (api.Buckets, error) {
				return b.Buckets(ctx, r.Provider, r.All)
			})},
			{Name: "show", Subject: "shoal.bucket.show", Handler: jsonHandler(func(ctx context.Context, r bucketRequest) (api.Bucket, error) {
				name, err := b.named(ctx, r.Bucket)
				if err != nil {
					return api.Bucket{}, err
				}
				return b.Bucket(ctx, name)
			})},
			{Name: "create", Subject: "shoal.bucket.create", Handler: jsonHandler(func(ctx context.Context, r createRequest) (api.Bucket, error) {
				name, err := b.named(ctx, r.Bucket)
				if err != nil {
					return api.Bucket{}, err
				}
				return b.CreateBucket(ctx, name, r.CreateBucket)
			})},
			{Name: "set", Subject: "shoal.bucket.set", Handler: jsonHandler(func(ctx context.Context, r setRequest) (api.Bucket, error) {
				name, err := b.named(ctx, r.Bucket)
				if err != nil {
					return api.Bucket{}, err
				}
				return b.SetBucket(ctx, name, r.SetBucket)
			})},
			{Name: "remove", Subject: "shoal.bucket.remove", Handler: jsonHandler(func(ctx context.Context, r bucketRequest) (any, error) {
				name, err := b.named(ctx, r.Bucket)
				if err == nil {
					err = b.DeleteBucket(ctx, name)
				}
				return struct{}{}, err
			})},
			{Name: "summary", Subject: "shoal.bucket.summary", Handler: jsonHandler(func(ctx context.Context, r summaryRequest) (api.Summary, error) {
				name, err := b.named(ctx, r.Bucket)
				if err != nil {
					return api.Summary{}, err
				}
				switch r.Presence {
				case api.AnyPresence, api.Cached:
				default:
					return api.Summary{}, fmt.Errorf("presence %q: want %q, or none: %w", r.Presence, api.Cached, core.ErrInvalid)
				}
				return b.Summary(ctx, name, apiserver.SummaryOptions{All: r.All, Presence: r.Presence}, func(api.SummaryPart) {})
			})},
		},
	}
}

// named reads the URI of a bucket.
func (b bucketService) named(ctx context.Context, uri string) (core.BucketName, error) {
	if uri == "" {
		return core.BucketName{}, fmt.Errorf(`the request names no bucket; want {"bucket":"s3://NAME"}: %w`, core.ErrInvalid)
	}
	u, err := b.s.readURI(ctx, uri)
	if err == nil && u.Key != "" {
		err = fmt.Errorf("%s: want a bucket, without a name in it: %w", uri, core.ErrInvalid)
	}
	return u.Bucket, err
}

// bucketsRequest lists buckets: of a provider, or of all; with All also remote ones
// that were not used yet.
type bucketsRequest struct {
	Provider core.Provider `json:"provider,omitempty"`
	All      bool          `json:"all,omitempty"`
}

// bucketRequest names a bucket by its URI.
type bucketRequest struct {
	Bucket string `json:"bucket"`
}

type createRequest struct {
	bucketRequest
	api.CreateBucket
}

type setRequest struct {
	bucketRequest
	api.SetBucket
}

// summaryRequest is as the parameters over HTTP.
type summaryRequest struct {
	bucketRequest
	All      bool         `json:"all,omitempty"`
	Presence api.Presence `json:"presence,omitempty"`
}
