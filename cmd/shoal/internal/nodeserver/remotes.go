package nodeserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
	"github.com/shoalstore/shoal/plugins/filebackend"
	"github.com/shoalstore/shoal/plugins/gcsbackend"
	"github.com/shoalstore/shoal/plugins/s3backend"
)

// newPool makes what speaks to the remotes of buckets: one client for each
// account and endpoint, which all buckets there share.
func (s *server) newPool(ctx context.Context) *remote.Pool {
	ctx = context.WithoutCancel(ctx) // requests end with their own
	open := func(p core.Provider, set core.RemoteSettings) (core.Backend, error) {
		return s.openBackend(ctx, p, set)
	}
	return remote.NewPool(open, remote.PoolOptions{Client: remote.ClientOptions{Clock: s.clock}, Requests: s.backendRequests})
}

// remotesOf opens backends from a pool.
func remotesOf(p *remote.Pool) func(core.BucketName, core.RemoteSettings) (core.Backend, error) {
	return func(b core.BucketName, set core.RemoteSettings) (core.Backend, error) {
		c, err := p.Client(b.Provider, set)
		if err != nil {
			return nil, err // not a nil *remote.Client in an interface
		}
		return c, nil
	}
}

// openBackend opens a backend by the node's configuration and what a bucket says
// otherwise.
func (s *server) openBackend(ctx context.Context, p core.Provider, set core.RemoteSettings) (core.Backend, error) {
	switch p {
	case core.S3:
		a := s.cfg.Backends.S3.S3Account
		if set.Account != "" {
			var ok bool
			if a, ok = s.cfg.Backends.S3.Accounts[set.Account]; !ok {
				return nil, noAccount("s3", set.Account)
			}
		}
		return s3backend.Open(ctx, s3backend.Options{
			Settings: core.RemoteSettings{
				Endpoint: cmp.Or(set.Endpoint, a.Endpoint), Region: cmp.Or(set.Region, a.Region), Profile: cmp.Or(set.Profile, a.Profile),
				Anonymous: set.Anonymous || a.Anonymous, PathStyle: set.PathStyle || a.PathStyle, Conditions: set.Conditions || a.Conditions,
			},
			AccessKey: a.AccessKey, SecretKey: string(a.SecretKey), SessionToken: string(a.SessionToken),
		})
	case core.GCS:
		a := s.cfg.Backends.GS.GSAccount
		if set.Account != "" {
			var ok bool
			if a, ok = s.cfg.Backends.GS.Accounts[set.Account]; !ok {
				return nil, noAccount("gs", set.Account)
			}
		}
		return gcsbackend.Open(ctx, gcsbackend.Options{
			Endpoint: cmp.Or(set.Endpoint, a.Endpoint), CredentialsFile: a.CredentialsFile, Anonymous: set.Anonymous || a.Anonymous,
			Project: a.Project, Conditions: set.Conditions,
		})
	case core.File:
		return filebackend.Open(filebackend.Options{Roots: s.cfg.Backends.File.Roots, Log: s.log, Now: s.clock.Now})
	}
	return nil, fmt.Errorf("buckets of %s://: %w", p, errors.ErrUnsupported)
}

func noAccount(provider, name string) error {
	return fmt.Errorf("this node's configuration has no backends.%s.accounts.%s: %w", provider, name, core.ErrInvalid)
}

// backendRequests is the most requests at a time to a backend.
func (s *server) backendRequests(p core.Provider, set core.RemoteSettings) int {
	b := &s.cfg.Backends
	switch p {
	case core.S3:
		return cmp.Or(b.S3.Accounts[set.Account].Requests, b.S3.Requests)
	case core.GCS:
		return cmp.Or(b.GS.Accounts[set.Account].Requests, b.GS.Requests)
	case core.HTTP, core.HTTPS:
		return b.HTTP.Requests
	case core.File:
		return b.File.Requests
	}
	return 0
}
