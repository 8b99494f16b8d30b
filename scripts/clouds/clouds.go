// Package clouds starts an S3 server and a server of Google Cloud Storage that
// other people wrote, as the two ends of a copy, and reads and writes them past
// the cluster that copies. The demo, the failure scripts and the benchmarks use it.
//
//	p, err := clouds.Start(ctx, clouds.Options{Proxies: true, S3Buckets: []string{"src"}, GCSBuckets: []string{"dst"}})
//	defer p.Close()
//	err = p.Source().Put(ctx, "src", "a/b", strings.NewReader("data"))
//	... shoal dev up with p.Flags() and p.Env() ...
package clouds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/cloudtest"
	"github.com/shoalstore/shoal/plugins/s3gateway/oneshot"
)

// Options of [Start].
type Options struct {
	// S3Buckets and GCSBuckets are created at once.
	S3Buckets, GCSBuckets []string
	// Proxies puts a proxy of ours before each server, which counts and slows; that
	// of the GCS server keeps each upload.
	Proxies bool
	// Host is the address that the proxies listen at, by default 127.0.0.1.
	Host string
}

// Pair is an S3 and a GCS server.
type Pair struct {
	S3, GCS *cloudtest.Server
	// S3Proxy and GCSProxy are nil without [Options.Proxies].
	S3Proxy, GCSProxy *cloudtest.Proxy
}

// Start starts both servers; ctx is for the start only.
func Start(ctx context.Context, o Options) (_ *Pair, err error) {
	p := &Pair{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.S3, err = cloudtest.Start(ctx, cloudtest.Options{Kind: cloudtest.S3, Buckets: o.S3Buckets}); err != nil {
		return nil, err
	}
	if p.GCS, err = cloudtest.Start(ctx, cloudtest.Options{Kind: cloudtest.GCS, Memory: true, Buckets: o.GCSBuckets}); err != nil {
		return nil, err
	}
	if !o.Proxies {
		return p, nil
	}
	return p, p.startProxies(o.Host) //nolint:contextcheck // they outlive the start
}

func (p *Pair) startProxies(host string) (err error) {
	listen := ""
	if host != "" {
		listen = net.JoinHostPort(host, "0")
	}
	if p.S3Proxy, err = cloudtest.StartProxy(cloudtest.ProxyOptions{Kind: cloudtest.S3, Upstream: p.S3.URL(), Listen: listen}); err != nil {
		return err
	}
	p.GCSProxy, err = cloudtest.StartProxy(cloudtest.ProxyOptions{Kind: cloudtest.GCS, Upstream: p.GCS.URL(), Listen: listen, Uploads: true})
	return err
}

// Close ends what was started.
func (p *Pair) Close() error {
	var errs []error
	for _, x := range []*cloudtest.Proxy{p.S3Proxy, p.GCSProxy} {
		if x != nil {
			errs = append(errs, x.Close())
		}
	}
	for _, s := range []*cloudtest.Server{p.S3, p.GCS} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// URLs are the endpoints that a cluster is to use: the proxies' if there are any.
func (p *Pair) URLs() (s3, gcs string) {
	if p.S3Proxy != nil {
		return p.S3Proxy.URL(), p.GCSProxy.URL()
	}
	return p.S3.URL(), p.GCS.URL()
}

// Flags are those of `shoal dev up` for a cluster before the servers.
func (p *Pair) Flags() []string {
	s3, gcs := p.URLs()
	return []string{"--backend", "s3=" + s3, "--backend", "gs=" + gcs}
}

// Env is what its environment has to have: the keys of the S3 server.
func (p *Pair) Env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + p.S3.AccessKey(), "AWS_SECRET_ACCESS_KEY=" + p.S3.Secret(), "AWS_REGION=" + p.S3.Region(),
		"AWS_EC2_METADATA_DISABLED=true", "SHOAL_BACKENDS_S3_CONDITIONS=true",
	}
}

// Publish lets anybody read and write a bucket of the S3 server: a cluster that has
// not been started with [Pair.Env] has no keys for it.
func (p *Pair) Publish(ctx context.Context, bucket string) error {
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": []string{"arn:aws:s3:::" + bucket, "arn:aws:s3:::" + bucket + "/*"},
	}}})
	if err != nil {
		return err
	}
	c := oneshot.New(oneshot.Options{URL: p.S3.URL(), AccessKey: p.S3.AccessKey(), Secret: p.S3.Secret(), Timeout: time.Minute, Retries: 2})
	if _, err := c.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: &bucket, Policy: aws.String(string(policy))}); err != nil {
		return fmt.Errorf("clouds: publish %s: %w", bucket, err)
	}
	return nil
}

// Settings are those of a bucket of the pair in a cluster that was started without
// [Pair.Flags]. The S3 server's is to be published.
func (p *Pair) Settings(provider core.Provider) core.RemoteSettings {
	s3, gcs := p.URLs()
	if provider == core.GCS {
		return core.RemoteSettings{Endpoint: gcs, Anonymous: true}
	}
	return core.RemoteSettings{Endpoint: s3, Anonymous: true, Region: p.S3.Region(), PathStyle: true, Conditions: true}
}

// Object is a line of a listing.
type Object struct {
	Key  string
	Size int64
}

// Store is one of the servers, past proxies and cluster. Its methods may be
// called concurrently.
type Store interface {
	Put(ctx context.Context, bucket, key string, body io.ReadSeeker) error
	// Open reads an object from its start; the caller closes it.
	Open(ctx context.Context, bucket, key string) (io.ReadCloser, error)
	// List yields all objects in order of key.
	List(ctx context.Context, bucket string) iter.Seq2[Object, error]
}

// Source is the S3 server.
func (p *Pair) Source() Store { return OpenS3(p.S3.URL(), p.S3.AccessKey(), p.S3.Secret()) }

// Destination is the GCS server.
func (p *Pair) Destination() Store { return OpenGCS(p.GCS.URL()) }

// OpenS3 is the store of an S3 server.
func OpenS3(url, accessKey, secret string) Store {
	return &s3Store{oneshot.New(oneshot.Options{URL: url, AccessKey: accessKey, Secret: secret, Timeout: time.Minute, Retries: 2})}
}

// OpenGCS is the store of a GCS server that asks for no credentials.
func OpenGCS(url string) Store {
	return &gcsStore{url, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32, ResponseHeaderTimeout: time.Minute}}}
}

type s3Store struct{ c *s3.Client }

func (s *s3Store) Put(ctx context.Context, bucket, key string, body io.ReadSeeker) error {
	_, err := s.c.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: body})
	return err
}

func (s *s3Store) Open(ctx context.Context, bucket, key string) (io.ReadCloser, error) {
	out, err := s.c.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return nil, err
	}
	return out.Body, nil
}

func (s *s3Store) List(ctx context.Context, bucket string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for pages := s3.NewListObjectsV2Paginator(s.c, &s3.ListObjectsV2Input{Bucket: &bucket}); pages.HasMorePages(); {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(Object{}, err)
				return
			}
			for i := range page.Contents {
				o := &page.Contents[i]
				if !yield(Object{aws.ToString(o.Key), aws.ToInt64(o.Size)}, nil) {
					return
				}
			}
		}
	}
}

type gcsStore struct {
	url string
	c   *http.Client
}

// ask sends a request and returns the answer's body if it is a good one.
func (s *gcsStore) ask(ctx context.Context, method, path string, query url.Values, body io.Reader) (io.ReadCloser, error) {
	u := s.url + path + "?" + query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	resp, err := s.c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s %s: %s: %s", method, u, resp.Status, why)
	}
	return resp.Body, nil
}

func (s *gcsStore) Put(ctx context.Context, bucket, key string, body io.ReadSeeker) error {
	r, err := s.ask(ctx, http.MethodPost, "/upload/storage/v1/b/"+bucket+"/o", url.Values{"uploadType": {"media"}, "name": {key}}, body)
	if err != nil {
		return err
	}
	return r.Close()
}

func (s *gcsStore) Open(ctx context.Context, bucket, key string) (io.ReadCloser, error) {
	return s.ask(ctx, http.MethodGet, "/storage/v1/b/"+bucket+"/o/"+url.PathEscape(key), url.Values{"alt": {"media"}}, http.NoBody)
}

func (s *gcsStore) List(ctx context.Context, bucket string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		query := url.Values{"maxResults": {"1000"}}
		for {
			var page struct {
				Items []struct {
					Name string
					Size int64 `json:",string"`
				}
				NextPageToken string
			}
			r, err := s.ask(ctx, http.MethodGet, "/storage/v1/b/"+bucket+"/o", query, http.NoBody)
			if err == nil {
				err = errors.Join(json.NewDecoder(r).Decode(&page), r.Close())
			}
			if err != nil {
				yield(Object{}, fmt.Errorf("list gs://%s: %w", bucket, err))
				return
			}
			for _, o := range page.Items {
				if !yield(Object{o.Name, o.Size}, nil) {
					return
				}
			}
			if page.NextPageToken == "" {
				return
			}
			query.Set("pageToken", page.NextPageToken)
		}
	}
}
