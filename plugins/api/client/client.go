// Package client speaks to a Shoal cluster: its own HTTP interface and, for the
// data of objects, S3. It survives the death of the node it talks to: a request
// goes on to the next endpoint of the list, a broken download goes on there at
// the byte where it broke, an upload sends the part again, and a watched job is
// watched from there.
//
//	c, err := client.New(client.Options{
//		Endpoints: []string{"http://n1:7070", "http://n2:7070"},
//		AccessKey: "admin", SecretKey: "admin-secret",
//	})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	b, err := c.Bucket(ctx, core.BucketName{Provider: core.Shoal, Name: "train"})
//	if err != nil {
//		return err
//	}
//	r, err := c.Get(ctx, b.Alias, "0001.tar", client.GetOptions{})
//
// Errors wrap core's sentinels; what the cluster said is an [api.Error]. A
// request that found no answer in time wraps core.ErrUnavailable.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/shoalstore/shoal/core"
)

// Options say how to reach a cluster. Endpoints and keys are needed; the zero
// value of everything else works.
type Options struct {
	// Endpoints are the URLs of nodes, http://host:port or https://. Requests
	// go to one of them as long as it answers.
	Endpoints []string
	AccessKey string
	SecretKey string
	// Region to sign for; us-east-1 if empty.
	Region string
	// RetryFor is how long a request is tried again, on all endpoints, without
	// any progress; one minute if zero. Where no endpoint has answered yet and
	// all refuse the connection, it is two seconds.
	RetryFor time.Duration
	// Silence is how long an endpoint may keep a request waiting, or stop in
	// the middle of a body, before it is given up; 15 seconds if zero. Requests
	// that only read begin with a third of it, and those that wait on purpose
	// add their time.
	Silence time.Duration
	// Patience is added to Silence for every request: for clusters that wait for
	// others before they answer.
	Patience time.Duration
	// PartSize is the size of the parts in which large objects move, at least
	// 5 MiB; 16 MiB if zero. Objects of up to two parts move whole.
	PartSize int64
	// Transport carries the requests; one made for many parallel requests to
	// few hosts if nil.
	Transport http.RoundTripper
	Clock     core.Clock   // the system's if nil
	Log       *slog.Logger // nothing if nil
	UserAgent string
}

// Client is safe for concurrent use.
type Client struct {
	o         Options
	endpoints *pool
	http      http.Client
	signer    *v4.Signer
	creds     aws.Credentials
}

// firstContact bounds the retries where nobody has ever answered.
const firstContact = 2 * time.Second

// New returns a client. It does not connect.
func New(o Options) (*Client, error) {
	if o.AccessKey == "" || o.SecretKey == "" {
		return nil, fmt.Errorf("no keys to sign requests with: %w", core.ErrPermission)
	}
	if len(o.Endpoints) == 0 {
		return nil, fmt.Errorf("no endpoints: %w", core.ErrInvalid)
	}
	var urls []*url.URL
	for _, e := range o.Endpoints {
		u, err := parseEndpoint(e)
		if err != nil {
			return nil, err
		}
		urls = append(urls, u)
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.RetryFor == 0 {
		o.RetryFor = time.Minute
	}
	if o.Silence == 0 {
		o.Silence = 15 * time.Second
	}
	if o.PartSize == 0 {
		o.PartSize = defaultPart
	}
	if o.PartSize < core.MinPart {
		return nil, fmt.Errorf("parts of %d bytes: want at least %d: %w", o.PartSize, core.MinPart, core.ErrInvalid)
	}
	if o.Clock == nil {
		o.Clock = newSystemClock()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Transport == nil {
		o.Transport = newTransport()
	}
	if o.UserAgent == "" {
		o.UserAgent = "shoal"
	}
	return &Client{
		o:         o,
		endpoints: newPool(urls, o.Clock),
		http: http.Client{
			Transport:     o.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		signer: v4.NewSigner(),
		creds:  aws.Credentials{AccessKeyID: o.AccessKey, SecretAccessKey: o.SecretKey},
	}, nil
}

// parseEndpoint reads http://host:port; without a scheme it is http.
func parseEndpoint(s string) (*url.URL, error) {
	s = strings.TrimSpace(s)
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("endpoint %q: want http://host:port or https://host:port: %w", s, core.ErrInvalid)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Endpoint is the URL that the next request goes to at first: that of the node that
// answered last.
func (c *Client) Endpoint() string { return c.endpoints.pick(nil).url.String() }

// Endpoints are the URLs that the client was made with.
func (c *Client) Endpoints() []string {
	var out []string
	for _, e := range c.endpoints.all {
		out = append(out, e.url.String())
	}
	return out
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       time.Minute,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}
}

// systemClock is the machine's clock. Its Boot is the process's monotonic time.
type systemClock struct{ start time.Time }

func newSystemClock() systemClock {
	return systemClock{time.Now()} //nolint:forbidigo // this is the default core.Clock
}

func (systemClock) Now() time.Time {
	return time.Now() //nolint:forbidigo // this is the default core.Clock
}

func (s systemClock) Boot() core.Instant { return core.Instant(s.Now().Sub(s.start)) }

func (systemClock) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d) //nolint:forbidigo // this is the default core.Clock
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// gaveUp is the error of a request that found no answer.
func gaveUp(what string, after time.Duration, last error) error {
	if errors.Is(last, core.ErrUnavailable) {
		return fmt.Errorf("%s: gave up after %s: %w", what, after.Round(100*time.Millisecond), last)
	}
	return fmt.Errorf("%s: gave up after %s: %w: %w", what, after.Round(100*time.Millisecond), core.ErrUnavailable, last)
}
