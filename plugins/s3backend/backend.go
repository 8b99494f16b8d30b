// Package s3backend keeps objects in S3: AWS itself, and servers that speak its
// protocol.
//
//	b, err := s3backend.Open(ctx, s3backend.Options{Settings: core.RemoteSettings{
//		Endpoint: "https://s3.example.net", Region: "us-east-1", PathStyle: true,
//	}})
//	obj, body, err := b.Get(ctx, "photos", "2026/cat.jpg", core.RemoteGet{Length: -1})
//
// # Versions and conditions
//
// A version is an ETag. Conditions on writes become If-Match and If-None-Match of
// PutObject and CompleteMultipartUpload. AWS holds to them; another server is
// believed to only if the settings say so (Conditions), because one that does not
// know the headers ignores them. If-Match of DeleteObject is used with AWS only: servers
// that hold to the others were seen to check it beside the removal, not in one step
// with it. On AWS If-Match needs the permission s3:GetObject as well.
//
// Gateways to file systems have no ETags for files that did not come through them. The
// version of those is made of Last-Modified, to the second, and the size; it is compared
// with the answer, and a write under the condition of such a version looks at
// the object before, not in one step.
//
// # Bodies
//
// Bodies are signed as UNSIGNED-PAYLOAD, over TLS and without: the hash of a body would
// have to be known before its first byte is sent, and checksums behind the body
// (aws-chunked) are what many servers do not take. What protects them is Content-MD5,
// which is signed and which every server checks. Give the MD5 where it is known. Where it is not,
// the body is streamed to AWS without, and for another server read twice, to find it:
// versitygw 1.8.0 for one keeps what came of a body that broke off as if it had been whole.
//
// # Requests
//
// A call makes one request, but for these: HEAD of what is not there, which another
// server than AWS is asked again by a GET, because an answer to HEAD does not say what it is that
// is not there; copies, as follows; and [Backend.Buckets], of more than a page.
//
// # Copies
//
// [Backend.Copy] asks for the source's HEAD first. Above 5 GiB, and under a condition
// where the server is not AWS, it goes by parts, whose completion holds to
// conditions like that of any upload.
package s3backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/remotehttp"
)

// S3's limits.
const (
	pageSize = 1000
	minPart  = 5 << 20
	maxParts = 10_000
	maxCopy  = 5 << 30 // bytes that one CopyObject or UploadPartCopy copies
)

// Options of [Open].
type Options struct {
	// Settings say which endpoint and account. What they leave out is found as
	// the AWS SDK finds it: variables, shared files, the instance's role.
	Settings core.RemoteSettings
	// AccessKey, SecretKey and SessionToken, if given, are used instead of what
	// the SDK would find.
	AccessKey, SecretKey, SessionToken string
	// Connections is how many connections are kept open for later requests, by
	// default 64.
	Connections int
	// Guard, if any, refuses addresses; then no proxy is used.
	Guard remotehttp.Guard
}

// Backend is an account at an S3 endpoint.
type Backend struct {
	client    *s3.Client
	transport *http.Transport
	abilities core.RemoteAbilities
	aws       bool // AWS itself, not a server that resembles it
	region    string
	maxCopy   int64 // of one request, in bytes
	partCopy  int64 // size of the parts of a copy
}

var (
	_ core.Backend           = (*Backend)(nil)
	_ core.RemoteUploader    = (*Backend)(nil)
	_ core.RemoteCopier      = (*Backend)(nil)
	_ core.RemoteTagger      = (*Backend)(nil)
	_ core.RemoteBucketMaker = (*Backend)(nil)
)

// Open prepares a backend. It makes no request; wrong credentials are found by the
// first method that needs them. Close it in the end.
func Open(ctx context.Context, o Options) (*Backend, error) {
	st := o.Settings
	if st.Endpoint != "" {
		if u, err := url.Parse(st.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("s3: endpoint %q: want http://host[:port] or https://host[:port]: %w", st.Endpoint, core.ErrInvalid)
		}
	}
	load := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{})}
	if st.Region != "" {
		load = append(load, config.WithRegion(st.Region))
	}
	if st.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(st.Profile))
	}
	switch {
	case st.Anonymous:
		load = append(load, config.WithCredentialsProvider(aws.AnonymousCredentials{}))
	case o.AccessKey != "":
		load = append(load, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, o.SessionToken)))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("s3: settings of the AWS SDK: %w: %w", core.ErrInvalid, err)
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	b := &Backend{transport: newTransport(o.Connections, cfg.HTTPClient), region: cfg.Region, maxCopy: maxCopy, partCopy: 1 << 30}
	if o.Guard != nil {
		b.transport.Proxy, b.transport.DialContext = nil, remotehttp.Transport(o.Guard).DialContext
	}
	b.client = s3.NewFromConfig(cfg, func(s *s3.Options) {
		if st.Endpoint != "" {
			s.BaseEndpoint = aws.String(st.Endpoint)
		}
		s.UsePathStyle = s.UsePathStyle || st.PathStyle
		s.HTTPClient = &http.Client{Transport: b.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		s.Retryer = aws.NopRetryer{} // repeating is core/remote's
		// The SDK's own checksums need bodies that it can read twice, or aws-chunked.
		s.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		s.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		if !st.Anonymous {
			s.Credentials = &namedCredentials{next: s.Credentials}
		}
	})
	endpoint := b.client.Options().BaseEndpoint
	b.aws = endpoint == nil || isAWS(*endpoint)
	b.abilities = core.RemoteAbilities{
		PutIf: b.aws || st.Conditions, DeleteIf: b.aws, PageSize: pageSize, PartSize: minPart, MaxParts: maxParts,
	}
	return b, nil
}

// isAWS says whether an endpoint is Amazon's.
func isAWS(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	h := strings.ToLower(u.Hostname())
	return strings.HasSuffix(h, ".amazonaws.com") || strings.HasSuffix(h, ".amazonaws.com.cn") || strings.HasSuffix(h, ".amazonaws.eu")
}

// newTransport makes the transport. sdk is the SDK's own client, which has the
// certificates that its settings name (ca_bundle).
func newTransport(connections int, sdk aws.HTTPClient) *http.Transport {
	if connections <= 0 {
		connections = 64
	}
	var certificates *tls.Config
	if c, ok := sdk.(*awshttp.BuildableClient); ok {
		certificates = c.GetTransport().TLSClientConfig
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		MaxIdleConns:          connections,
		MaxIdleConnsPerHost:   connections,
		IdleConnTimeout:       50 * time.Second, // S3 closes idle connections after about a minute
		ExpectContinueTimeout: time.Second,
		TLSClientConfig:       certificates,
		DisableCompression:    true, // the bytes as they are kept
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}
}

// Close ends the connections that are idle.
func (b *Backend) Close() error {
	b.transport.CloseIdleConnections()
	return nil
}

// Abilities implements [core.Backend].
func (b *Backend) Abilities() core.RemoteAbilities { return b.abilities }

// Buckets implements [core.Backend].
func (b *Backend) Buckets(ctx context.Context) ([]string, error) {
	var names []string
	var token *string
	for {
		c := &call{b: b, op: "list buckets"}
		out, err := b.client.ListBuckets(c.trace(ctx), &s3.ListBucketsInput{ContinuationToken: token})
		if err != nil {
			return nil, c.fail(ctx, err)
		}
		for _, bucket := range out.Buckets {
			names = append(names, aws.ToString(bucket.Name))
		}
		if token = out.ContinuationToken; aws.ToString(token) == "" {
			return names, nil
		}
	}
}

// HeadBucket implements [core.Backend].
func (b *Backend) HeadBucket(ctx context.Context, bucket string) error {
	c := &call{b: b, op: "head", bucket: bucket, head: true}
	_, err := b.client.HeadBucket(c.trace(ctx), &s3.HeadBucketInput{Bucket: &bucket})
	if b.doubtful(err) { // a listing's answer says what it is that is not there
		_, err := b.List(ctx, bucket, core.RemoteListOptions{Max: 1})
		return err
	}
	return c.fail(ctx, err)
}

// CreateBucket implements [core.RemoteBucketMaker], in the backend's region.
func (b *Backend) CreateBucket(ctx context.Context, bucket string) error {
	c := &call{b: b, op: "create bucket", bucket: bucket, write: true}
	in := &s3.CreateBucketInput{Bucket: &bucket}
	if b.aws && b.region != "us-east-1" {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(b.region)}
	}
	_, err := b.client.CreateBucket(c.trace(ctx), in)
	return c.fail(ctx, err)
}

// namedCredentials makes errors of the SDK's credentials known as such.
type namedCredentials struct {
	next aws.CredentialsProvider
	had  atomic.Bool // credentials were found before
}

// credentialsError says that there are no credentials now.
type credentialsError struct {
	had bool
	err error
}

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// Retrieve implements [aws.CredentialsProvider].
func (n *namedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if n.next == nil {
		return aws.Credentials{}, &credentialsError{err: errors.New("none configured")}
	}
	c, err := n.next.Retrieve(ctx)
	if err != nil {
		return c, &credentialsError{had: n.had.Load(), err: err}
	}
	n.had.Store(true)
	return c, nil
}
