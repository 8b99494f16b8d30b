package nodeserver

import (
	"cmp"
	"context"
	"fmt"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
	"github.com/shoalstore/shoal/plugins"
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
	account, err := s.account(p, set.Account)
	if err != nil {
		return nil, err
	}
	return plugins.Open(ctx, p, account.For(p, set))
}

// account is what the node's configuration says of an account, "" for the
// provider's unnamed one.
func (s *server) account(p core.Provider, name string) (plugins.Settings, error) {
	out := plugins.Settings{Log: s.log, Now: s.clock.Now}
	switch p {
	case core.S3:
		a, ok := s.cfg.Backends.S3.S3Account, true
		if name != "" {
			a, ok = s.cfg.Backends.S3.Accounts[name]
		}
		if !ok {
			return out, noAccount("s3", name)
		}
		out.RemoteSettings = core.RemoteSettings{
			Endpoint: a.Endpoint, Region: a.Region, Profile: a.Profile, Anonymous: a.Anonymous, PathStyle: a.PathStyle, Conditions: a.Conditions,
		}
		out.AccessKey, out.SecretKey, out.SessionToken = a.AccessKey, string(a.SecretKey), string(a.SessionToken)
	case core.GCS:
		a, ok := s.cfg.Backends.GS.GSAccount, true
		if name != "" {
			a, ok = s.cfg.Backends.GS.Accounts[name]
		}
		if !ok {
			return out, noAccount("gs", name)
		}
		out.RemoteSettings = core.RemoteSettings{Endpoint: a.Endpoint, Anonymous: a.Anonymous, Conditions: a.Conditions}
		out.CredentialsFile, out.Project, out.UploadConditions = a.CredentialsFile, a.Project, a.UploadConditions
	case core.HTTP, core.HTTPS:
		out.Allow = s.cfg.Backends.HTTP.Allow
	case core.File:
		out.Roots = s.cfg.Backends.File.Roots
	}
	return out, nil
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
