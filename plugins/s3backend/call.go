package s3backend

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/shoalstore/shoal/core"
)

// call is one request.
type call struct {
	b           *Backend
	op          string
	bucket, key string
	write       bool
	head        bool        // its answer has no body
	sent        atomic.Bool // there was a connection to send it on
	body        *sentBody   // nil if it has none
}

func (c *call) String() string {
	switch {
	case c.bucket == "":
		return "s3: " + c.op
	case c.key == "":
		return fmt.Sprintf("s3: %s %s", c.op, c.bucket)
	}
	return fmt.Sprintf("s3: %s %s/%q", c.op, c.bucket, c.key)
}

// trace notes whether the request was sent.
func (c *call) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { c.sent.Store(true) },
	})
}

// sentBody is a body on its way. The HTTP client may read on after the call has
// returned; what it reads then is an error.
type sentBody struct {
	mu   sync.Mutex
	r    io.ReadCloser
	left int64
	err  error // why the body is not what was announced
	done bool
}

var errBodyClosed = errors.New("the request has ended")

// open opens the body of o; close it after the call.
func (c *call) open(ctx context.Context, o core.RemotePut) error {
	r, err := o.Open(ctx)
	if err != nil {
		return fmt.Errorf("%s: open the body: %w", c, err)
	}
	c.body = &sentBody{r: r, left: o.Size}
	return nil
}

// contentMD5 is the MD5 of the body of o. Where it is not known it is found by reading
// the body once more, unless the server is known not to keep a body that broke off:
// others were seen to, as if it had been whole.
func (c *call) contentMD5(ctx context.Context, o core.RemotePut) (*string, error) {
	sum := o.MD5
	if len(sum) == 0 {
		if c.b.aws || o.Size == 0 {
			return nil, nil
		}
		r, err := o.Open(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: open the body: %w", c, err)
		}
		defer func() { _ = r.Close() }()
		h := md5.New()
		if _, err := io.CopyN(h, r, o.Size); err != nil {
			return nil, fmt.Errorf("%s: read the body: %w", c, err)
		}
		sum = h.Sum(nil)
	}
	s := base64.StdEncoding.EncodeToString(sum)
	return &s, nil
}

// reader is the body for the SDK; nil, which it knows, for an empty one.
func (b *sentBody) reader() io.Reader {
	if b.left == 0 {
		return nil
	}
	return b
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return 0, errBodyClosed
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && b.left > 0:
		err = fmt.Errorf("%d bytes are missing: %w", b.left, io.ErrUnexpectedEOF)
		b.err = err
	case err != nil && !errors.Is(err, io.EOF):
		b.err = err
	}
	return n, err
}

// failed is why the body could not be read, nil if it could.
func (b *sentBody) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// close ends the body, whether or not the HTTP client reads it still.
func (c *call) close() {
	if c.body == nil {
		return
	}
	c.body.mu.Lock()
	defer c.body.mu.Unlock()
	c.body.done = true
	_ = c.body.r.Close()
}

// unsigned makes the signature leave out the body; see the package comment.
func unsigned(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
}

func unquote(etag string) string {
	return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`)
}
