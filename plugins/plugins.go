// Package plugins lists the backends that the program has. docs/plugins.md says
// how to add one.
//
//	b, err := plugins.Open(ctx, core.S3, plugins.Settings{RemoteSettings: core.RemoteSettings{Region: "eu-central-1"}})
package plugins

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/filebackend"
	"github.com/shoalstore/shoal/plugins/gcsbackend"
	"github.com/shoalstore/shoal/plugins/httpbackend"
	"github.com/shoalstore/shoal/plugins/remotehttp"
	"github.com/shoalstore/shoal/plugins/s3backend"
)

// Settings are what backends are opened with: an account of the node's
// configuration, overridden by what a bucket says. A backend takes what concerns it.
type Settings struct {
	core.RemoteSettings
	// AccessKey, SecretKey and SessionToken are of S3.
	AccessKey, SecretKey, SessionToken string
	// CredentialsFile and Project are of Google Cloud Storage.
	CredentialsFile, Project string
	// UploadConditions is too; see [gcsbackend.Options].
	UploadConditions bool
	// Allow is of web origins; see [httpbackend.Options].
	Allow []string
	// Roots are of directories on the servers.
	Roots map[string]string
	// Log and Now may be nil.
	Log *slog.Logger
	Now func() time.Time
	// foreign: the endpoint is not the configuration's.
	foreign bool
}

// For returns the settings for a bucket of p with its own ones. What a bucket says
// any user may have said; so to an endpoint that is not the configuration's no
// credentials are sent that could be used elsewhere. (S3's requests are only signed;
// Google's carry a token.)
func (s Settings) For(p core.Provider, b core.RemoteSettings) Settings {
	if b.Endpoint != "" && b.Endpoint != s.Endpoint {
		s.foreign, s.UploadConditions = true, false
		if p == core.GCS {
			s.Anonymous, s.CredentialsFile = true, ""
		}
	}
	s.Account = b.Account
	s.Endpoint, s.Region, s.Profile, s.Name = cmp.Or(b.Endpoint, s.Endpoint), cmp.Or(b.Region, s.Region), cmp.Or(b.Profile, s.Profile), b.Name
	s.Anonymous, s.PathStyle, s.Conditions = b.Anonymous || s.Anonymous, b.PathStyle || s.PathStyle, b.Conditions || s.Conditions
	return s
}

// guard keeps endpoints that users chose away from a cloud's metadata.
func (s Settings) guard() remotehttp.Guard {
	if !s.foreign {
		return nil
	}
	return func(host string, a netip.AddrPort) error {
		if remotehttp.LinkLocal(a.Addr()) {
			return fmt.Errorf("endpoint %s is at a link-local address, which is not asked: %w", host, core.ErrPermission)
		}
		return nil
	}
}

// Backend is a kind of remote.
type Backend struct {
	Provider core.Provider
	// Name is the remote's, for people.
	Name string
	// Open makes no request and waits for nothing. The backend may have a
	// method Close.
	Open func(ctx context.Context, s Settings) (core.Backend, error)
}

// Backends lists all backends: the one place to add another.
func Backends() []Backend {
	return []Backend{
		{core.S3, "Amazon S3, and what speaks like it", func(ctx context.Context, s Settings) (core.Backend, error) {
			return opened(s3backend.Open(ctx, s3backend.Options{
				Settings: s.RemoteSettings, AccessKey: s.AccessKey, SecretKey: s.SecretKey, SessionToken: s.SessionToken, Guard: s.guard(),
			}))
		}},
		{core.GCS, "Google Cloud Storage", func(ctx context.Context, s Settings) (core.Backend, error) {
			return opened(gcsbackend.Open(ctx, gcsbackend.Options{
				Endpoint: s.Endpoint, CredentialsFile: s.CredentialsFile, Anonymous: s.Anonymous, Project: s.Project, Conditions: s.Conditions,
				UploadConditions: s.UploadConditions, Guard: s.guard(),
			}))
		}},
		{core.HTTP, "web origins, read-only", web(core.HTTP)},
		{core.HTTPS, "web origins, read-only", web(core.HTTPS)},
		{core.File, "directories on the servers", func(_ context.Context, s Settings) (core.Backend, error) {
			return opened(filebackend.Open(filebackend.Options{Roots: s.Roots, Log: s.Log, Now: s.Now}))
		}},
	}
}

func web(scheme core.Provider) func(context.Context, Settings) (core.Backend, error) {
	return func(_ context.Context, s Settings) (core.Backend, error) {
		return opened(httpbackend.Open(httpbackend.Options{Scheme: scheme, Allow: s.Allow}))
	}
}

// opened makes no interface of a nil pointer.
func opened[B core.Backend](b B, err error) (core.Backend, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Open opens a backend of a provider.
func Open(ctx context.Context, p core.Provider, s Settings) (core.Backend, error) {
	for _, b := range Backends() {
		if b.Provider == p {
			return b.Open(ctx, s)
		}
	}
	return nil, fmt.Errorf("buckets of %s://: %w", p, errors.ErrUnsupported)
}
