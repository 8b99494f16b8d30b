// Package oneshot is an S3 client of one node for those who must know what came
// of each request: it sends each one once, tells those that were never sent from
// those without an answer, and leaves the checking of bodies to the caller.
//
//	c := oneshot.New(oneshot.Options{URL: "http://127.0.0.1:7070", AccessKey: key, Secret: secret, Timeout: 8 * time.Second})
//	_, err := c.PutObject(ctx, in)
//	switch {
//	case err == nil: // it took effect
//	case oneshot.NeverSent(err): // it did not
//	case oneshot.Status(err) == 0: // nobody knows
//	}
package oneshot

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Options say which node, with which keys.
type Options struct {
	URL, AccessKey, Secret string
	// Timeout bounds a request with its bodies.
	Timeout time.Duration
	// Retries is how often the SDK may repeat a request after all.
	Retries int
}

// New returns a client. Its idle connections end by themselves.
func New(o Options) *s3.Client {
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: o.Timeout,
		ExpectContinueTimeout: time.Second, // as in the SDK's own
	}
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(o.URL), UsePathStyle: true, Region: "us-east-1",
		Credentials:                credentials.NewStaticCredentialsProvider(o.AccessKey, o.Secret, ""),
		HTTPClient:                 &http.Client{Transport: transport, Timeout: o.Timeout},
		RetryMaxAttempts:           o.Retries + 1,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
}

// Status is the HTTP status of an answer that is an error, 0 if there was no
// answer.
func Status(err error) int {
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return r.HTTPStatusCode()
	}
	return 0
}

// NeverSent says that there was no connection to send a request on.
func NeverSent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// ETag is an ETag without its quotes.
func ETag(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }
