// Package gcsbackend is [core.Backend] on Google Cloud Storage.
//
//	b, err := gcsbackend.Open(ctx, gcsbackend.Options{})                                    // Google's, with the default credentials
//	b, err := gcsbackend.Open(ctx, gcsbackend.Options{Endpoint: url, Anonymous: true})      // an emulator
//
// What Google's storage has and what has not, S3 told:
//
//   - A version is an object's generation, and its metageneration where that is
//     not 1: as "1700000000000000" and "1700000000000000.2".
//   - The ETag shown is the MD5 in hex. Objects that were composed have none; theirs
//     is the generation, in the form of S3's multipart ETags, which no client takes
//     for an MD5. The CRC32C is there always.
//   - Tags, and the headers that Google does not keep, are in the object's metadata, under
//     names that begin with "shoal-"; users cannot set these.
//   - Storage classes of S3 become the nearest of Google's; these are shown as they
//     are called.
//   - An upload in parts makes an object of each part, under [TempPrefix], and composes them.
//     Resumable uploads, the other way, take bytes only in order and on one connection. Listings do
//     not show what is under TempPrefix. What a node that died has left there may be
//     removed by a lifecycle rule of the bucket, for objects older than a week, say.
//
// The client library is used with its own retries off, where it does what must be
// done. It does not for bodies and listings: its reader repeats requests by itself even so, and
// hides most headers. Its writer ends a body that breaks off with the closing boundary, so
// that a server may take it for whole. Its listings take any JSON for an empty one.
package gcsbackend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/remotehttp"
)

// Limits of the service (Cloud Storage, "Quotas and limits"; "Objects: list").
const (
	pageSize = 1000
	// partSize is not a limit of Google's, but a part is an object with the
	// costs of one. S3's clients send no smaller ones.
	partSize = 5 << 20
	maxParts = 10_000
	// maxCompose is how many objects are composed at a time.
	maxCompose = 32
)

// publicEndpoint is Google's.
const publicEndpoint = "https://storage.googleapis.com"

// Options of [Open]. The zero value is Google's own endpoint with the default
// credentials of the process (GOOGLE_APPLICATION_CREDENTIALS, gcloud's, the
// machine's service account).
type Options struct {
	// Endpoint is http(s)://host[:port] of an emulator or a proxy. The variable
	// STORAGE_EMULATOR_HOST has no effect, with or without it: it would send
	// to an emulator what is meant for Google, and without signing in.
	Endpoint string
	// CredentialsFile is a JSON file of a service account or the like.
	CredentialsFile string
	// Anonymous asks for public objects, without credentials.
	Anonymous bool
	// Project is where buckets are listed and made, by default the credentials'.
	Project string
	// Conditions says that the server at Endpoint holds to preconditions on all
	// writes. Google does, and is known to; emulators do of uploads at the most.
	Conditions bool
	// UploadConditions says that it holds to them on uploads in one request, as
	// fake-gcs-server does, and perhaps on no other write. Then objects of any size are
	// uploaded so, and removed without.
	UploadConditions bool
	// Guard, if any, refuses addresses.
	Guard remotehttp.Guard
}

// Backend is one account at one endpoint.
type Backend struct {
	o      Options
	client *storage.Client
	http   *http.Client
	base   url.URL
	google bool    // it is Google's own
	signed *signed // nil without credentials
}

var (
	_ core.Backend           = (*Backend)(nil)
	_ core.RemoteUploader    = (*Backend)(nil)
	_ core.RemoteCopier      = (*Backend)(nil)
	_ core.RemoteBucketMaker = (*Backend)(nil)
)

// Open returns a backend. It makes no request; whether the default credentials are
// to be found turns out when the first one needs them.
func Open(ctx context.Context, o Options) (*Backend, error) {
	base, google, err := endpoint(o.Endpoint)
	if err != nil {
		return nil, err
	}
	transport := remotehttp.Transport(o.Guard)
	b := &Backend{o: o, base: base, google: google, http: &http.Client{
		Transport: transport,
		// The storage sends nobody elsewhere; credentials must not go there.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if !o.Anonymous {
		if base.Scheme == "http" && !loopback(base.Hostname()) {
			return nil, fmt.Errorf("gs: endpoint %s: credentials are not sent without TLS; use https, or anonymous access: %w", base.String(), core.ErrInvalid)
		}
		b.signed = &signed{file: o.CredentialsFile, base: transport}
		if o.CredentialsFile != "" {
			if _, err := b.signed.find(); err != nil {
				return nil, fmt.Errorf("gs: %w", err)
			}
		}
		b.http.Transport = b.signed
	}
	api := base
	api.Path = "/storage/v1/"
	b.client, err = storage.NewClient(ctx, option.WithHTTPClient(b.http), option.WithEndpoint(api.String()))
	if err != nil {
		return nil, fmt.Errorf("gs: %w", err)
	}
	b.client.SetRetry(storage.WithPolicy(storage.RetryNever))
	return b, nil
}

// Close lets connections go.
func (b *Backend) Close() error {
	b.http.CloseIdleConnections()
	return b.client.Close()
}

// endpoint reads Options.Endpoint and says whether it is Google's own.
func endpoint(s string) (u url.URL, google bool, err error) {
	if s == "" {
		s = publicEndpoint
	}
	p, err := url.Parse(s)
	if err != nil || p.Scheme != "http" && p.Scheme != "https" || p.Host == "" || p.User != nil {
		return u, false, fmt.Errorf("gs: endpoint: want http://host[:port] or https://: %w", core.ErrInvalid)
	}
	if path := strings.Trim(p.Path, "/"); path != "" && path != "storage/v1" || p.RawQuery != "" || p.Fragment != "" {
		return u, false, fmt.Errorf("gs: endpoint %q: want no path: %w", s, core.ErrInvalid)
	}
	host := p.Hostname()
	google = p.Scheme == "https" && (host == "googleapis.com" || strings.HasSuffix(host, ".googleapis.com"))
	return url.URL{Scheme: p.Scheme, Host: p.Host}, google, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// Abilities implements [core.Backend].
func (b *Backend) Abilities() core.RemoteAbilities {
	a := core.RemoteAbilities{PutIf: b.holds(), DeleteIf: b.holds(), PageSize: pageSize, PartSize: partSize, MaxParts: maxParts}
	if !b.holds() && b.o.UploadConditions {
		a.PutIf, a.PartSize, a.MaxParts = true, 0, 0
	}
	return a
}

// holds says whether the server holds to conditions on all writes.
func (b *Backend) holds() bool { return b.google || b.o.Conditions }

// Buckets implements [core.Backend]: those of the project.
func (b *Backend) Buckets(ctx context.Context) ([]string, error) {
	project, err := b.project(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	it := b.client.Buckets(ctx, project)
	for {
		a, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return out, nil
		}
		if err != nil {
			return nil, request{what: "list buckets"}.failed(err)
		}
		out = append(out, a.Name)
	}
}

// project is where buckets are listed and made; emulators need none.
func (b *Backend) project(ctx context.Context) (string, error) {
	p := b.o.Project
	if p == "" && b.signed != nil {
		c, err := b.signed.find()
		if err != nil {
			return "", fmt.Errorf("gs: %w", err)
		}
		p, _ = c.ProjectID(ctx) // not every kind of credentials has one
	}
	if p == "" && b.google {
		return "", fmt.Errorf("gs: which project's buckets? set backends.gs.project: %w", core.ErrInvalid)
	}
	return p, nil
}

// HeadBucket implements [core.Backend].
func (b *Backend) HeadBucket(ctx context.Context, bucket string) error {
	_, err := b.client.Bucket(bucket).Attrs(ctx)
	if err = (request{what: "head bucket " + bucket, missing: core.ErrNoSuchBucket}).failed(err); errors.Is(err, core.ErrPermission) {
		// Who may read objects, as everybody may those of a public bucket, need
		// not be allowed to read the bucket's own properties.
		_, err = b.List(ctx, bucket, core.RemoteListOptions{Max: 1})
	}
	return err
}

// CreateBucket implements [core.RemoteBucketMaker].
func (b *Backend) CreateBucket(ctx context.Context, bucket string) error {
	project, err := b.project(ctx)
	if err != nil {
		return err
	}
	err = b.client.Bucket(bucket).Create(ctx, project, nil)
	err = request{what: "create bucket " + bucket, write: true}.failed(err)
	if errors.Is(err, core.ErrConflict) {
		return fmt.Errorf("%w: %w", core.ErrExists, err)
	}
	return err
}
