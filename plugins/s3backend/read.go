package s3backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/shoalstore/shoal/core"
)

// Head implements [core.Backend].
func (b *Backend) Head(ctx context.Context, bucket, key string) (core.RemoteObject, error) {
	if err := core.ValidateKey(key); err != nil {
		return core.RemoteObject{}, err
	}
	c := &call{b: b, op: "head", bucket: bucket, key: key, head: true}
	out, err := b.client.HeadObject(c.trace(ctx), &s3.HeadObjectInput{Bucket: &bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
	if b.doubtful(err) {
		return b.headByGet(ctx, bucket, key)
	}
	if err != nil {
		return core.RemoteObject{}, c.fail(ctx, err)
	}
	o := describe(bucket, key, headers(out.ResultMetadata))
	if out.ContentLength == nil {
		return core.RemoteObject{}, fmt.Errorf("%s: %w: the answer has no Content-Length", c, core.ErrUnavailable)
	}
	o.Size = *out.ContentLength
	if err := b.identify(&o); err != nil {
		return core.RemoteObject{}, fmt.Errorf("%s: %w: %w", c, core.ErrUnavailable, err)
	}
	return o, nil
}

// headByGet asks by a GET, whose answer says in its body what it is that is not there.
func (b *Backend) headByGet(ctx context.Context, bucket, key string) (core.RemoteObject, error) {
	o, body, err := b.Get(ctx, bucket, key, core.RemoteGet{Length: 1})
	if errors.Is(err, core.ErrRange) {
		o, body, err = b.Get(ctx, bucket, key, core.RemoteGet{Length: -1})
	}
	if err != nil {
		return core.RemoteObject{}, err
	}
	return o, body.Close()
}

// Get implements [core.Backend].
func (b *Backend) Get(ctx context.Context, bucket, key string, o core.RemoteGet) (core.RemoteObject, io.ReadCloser, error) {
	none := core.RemoteObject{}
	if err := core.ValidateKey(key); err != nil {
		return none, nil, err
	}
	if o.Offset < 0 || o.Length < -1 || o.Length == 0 {
		return none, nil, fmt.Errorf("range of %d bytes from %d: %w", o.Length, o.Offset, core.ErrInvalid)
	}
	in := &s3.GetObjectInput{Bucket: &bucket, Key: &key}
	if o.Version != "" {
		if err := checkVersion(o.Version); err != nil {
			return none, nil, err
		}
		in.IfMatch = ifMatch(o.Version)
	}
	if o.Offset > 0 || o.Length > 0 {
		r := fmt.Sprintf("bytes=%d-", o.Offset)
		if o.Length > 0 {
			r += strconv.FormatInt(o.Offset+o.Length-1, 10)
		}
		in.Range = &r
	}
	c := &call{b: b, op: "get", bucket: bucket, key: key}
	// Asked for by the input, the SDK would check the body against a checksum of the whole
	// object, which a range is not.
	out, err := b.client.GetObject(c.trace(ctx), in, func(s *s3.Options) {
		s.APIOptions = append(s.APIOptions, smithyhttp.SetHeaderValue("X-Amz-Checksum-Mode", "ENABLED"))
	})
	if err != nil {
		err = c.fail(ctx, err)
		if errors.Is(err, core.ErrRange) && o.Offset < sizeOf(o.Version) {
			return none, nil, fmt.Errorf("%w: version %s was longer: %w", core.ErrPrecondition, o.Version, err)
		}
		return none, nil, err
	}
	obj := describe(bucket, key, headers(out.ResultMetadata))
	length, err := c.extent(&obj, o, out)
	if err != nil {
		_ = out.Body.Close()
		return none, nil, err
	}
	return obj, &receivedBody{c: c, ctx: ctx, r: out.Body, left: length}, nil
}

// extent checks that the answer has what was asked for, completes the object's
// description, and returns the body's length.
func (c *call) extent(obj *core.RemoteObject, o core.RemoteGet, out *s3.GetObjectOutput) (int64, error) {
	lie := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w: %s", c, core.ErrUnavailable, fmt.Sprintf(format, args...))
	}
	if out.ContentLength == nil || *out.ContentLength < 0 {
		return 0, lie("the answer has no Content-Length")
	}
	length := *out.ContentLength
	first, last, size := int64(0), length-1, length
	if out.ContentRange != nil {
		var err error
		if first, last, size, err = parseContentRange(*out.ContentRange); err != nil {
			return 0, lie("%v", err)
		}
	}
	obj.Size = size
	if err := c.b.identify(obj); err != nil {
		return 0, lie("%v", err)
	}
	if o.Version != "" && obj.Version != o.Version {
		return 0, fmt.Errorf("%s: %w: asked for version %q, got %q", c, core.ErrPrecondition, o.Version, obj.Version)
	}
	if out.ContentRange == nil {
		// A server may leave ranges alone; that of the whole it may answer so.
		if o.Offset > 0 || o.Length > 0 && length > o.Length {
			return 0, lie("asked for a range, got an answer without Content-Range")
		}
		return length, nil
	}
	want := size - 1
	if o.Length > 0 {
		want = min(want, o.Offset+o.Length-1)
	}
	if first != o.Offset || last != want || length != last-first+1 {
		return 0, lie("asked for %d bytes from %d, got Content-Range %q and Content-Length %d", o.Length, o.Offset, *out.ContentRange, length)
	}
	return length, nil
}

// parseContentRange reads "bytes first-last/size".
func parseContentRange(v string) (first, last, size int64, err error) {
	bad := fmt.Errorf("the answer's Content-Range %q is not a range", v)
	rest, ok := strings.CutPrefix(v, "bytes ")
	if !ok {
		return 0, 0, 0, bad
	}
	run, of, _ := strings.Cut(rest, "/")
	from, to, _ := strings.Cut(run, "-")
	var errs [3]error
	first, errs[0] = strconv.ParseInt(from, 10, 64)
	last, errs[1] = strconv.ParseInt(to, 10, 64)
	size, errs[2] = strconv.ParseInt(of, 10, 64)
	if errors.Join(errs[:]...) != nil || first < 0 || last < first || size <= last {
		return 0, 0, 0, bad
	}
	return first, last, size, nil
}

// receivedBody is the body of an answer: all of it, or an error.
type receivedBody struct {
	c    *call
	ctx  context.Context // of the Get, which bounds the body too
	r    io.ReadCloser
	left int64
}

func (b *receivedBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.left -= int64(n)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && b.left == 0:
		return n, io.EOF
	case b.ctx.Err() != nil:
		return n, fmt.Errorf("%s: %w", b.c, context.Cause(b.ctx))
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("%s: %w: the body broke with %d bytes missing: %w", b.c, core.ErrUnavailable, b.left, err)
}

func (b *receivedBody) Close() error { return b.r.Close() }
