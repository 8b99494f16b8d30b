package nodeserver

import (
	"context"
	"strings"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// byPath is how the URI of a directory of the servers' begins that is named by its
// path instead of its root.
const byPath = "file:///"

// Resolve is part of apiserver.BucketService.
func (b bucketService) Resolve(ctx context.Context, uri string) (api.Resolved, error) {
	u, err := b.s.readURI(ctx, uri)
	return api.Resolved{URI: u.String()}, err
}

// readURI reads a URI. A path of the servers' becomes a root and what is below it;
// that ends in "/" where it is a directory that has something in it.
func (s *server) readURI(ctx context.Context, uri string) (core.URI, error) {
	u, err := core.ResolveURI(uri, s.cfg.Backends.File.Roots)
	if err != nil || u.Key == "" || !strings.HasPrefix(uri, byPath) {
		return u, err
	}
	if strings.HasSuffix(u.Key, "/") {
		return u, nil
	}
	k, err := s.backend(u.Bucket, core.RemoteSettings{})
	if err != nil {
		return u, err
	}
	page, err := listRemote(ctx, k, core.Bucket{Name: u.Bucket}, core.RemoteListOptions{Prefix: u.Key + "/", Max: 1})
	if err != nil {
		return u, remoteError(u.Bucket, err)
	}
	if len(page.Objects) > 0 {
		u.Key += "/"
	}
	return u, nil
}

// resolveJob replaces paths of the servers' in what a job is to do. What a directory
// gets is put into it.
func (s *server) resolveJob(ctx context.Context, in *api.JobSpec) error {
	for _, uri := range []*string{&in.From, &in.To} {
		if !strings.HasPrefix(*uri, byPath) {
			continue
		}
		u, err := s.readURI(ctx, *uri)
		if err != nil {
			return err
		}
		if uri == &in.To && u.Key != "" && in.Prepend == "" {
			in.Prepend = strings.TrimSuffix(u.Key, "/") + "/"
			u.Key = ""
		}
		*uri = u.String()
	}
	return nil
}
