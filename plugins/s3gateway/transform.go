package s3gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

const (
	// transformHeld is how much of a result is there before the status goes out, in
	// bytes: what fails before that is an error that every client understands.
	transformHeld = 64 << 10
	// transformWhole is the size up to which an object is read before its
	// transform begins.
	transformWhole = 64 << 10
	argPrefix      = "arg."

	transformHeader = "X-Shoal-Transform"
	droppedHeader   = "X-Shoal-Dropped"
)

// transformed is an object that is served through a transform.
type transformed struct {
	q       *request
	ref     core.TransformRef // with the digest
	args    map[string]string
	etag    string
	options core.GetOptions
	obj     *core.Object
	out     *inlineOutput
	held    *bytes.Buffer // of out, until its status goes out
}

// transformObject serves GET and HEAD of an object with ?transform=NAME, or
// NAME@DIGEST, and arg.K=V for each argument.
func (q *request) transformObject(ctx context.Context, name, sub string) error {
	switch {
	case q.transforms == nil:
		return errNotImplemented("transforms")
	case sub != "" || q.r.Method != http.MethodGet && q.r.Method != http.MethodHead:
		return errInvalidRequest("transform= goes with GET and HEAD of an object only")
	case strings.Contains(name, ">>"):
		return errNotImplemented("chains of transforms")
	case q.query.Has("partNumber") || first(q.r.Header, "Range") != "":
		// The result has no size before it is made.
		return errInvalidRequest("A transform's result is served whole: ask without Range and partNumber")
	}
	t := &transformed{q: q}
	var err error
	if t.args, err = q.transformArgs(); err != nil {
		return err
	}
	if t.options, err = q.getOptions(); err != nil {
		return err
	}
	var ref core.TransformRef
	ref.Name, ref.Digest, _ = strings.Cut(name, "@")
	var version string
	if t.ref, version, err = q.transforms.Resolve(ctx, ref); err != nil {
		return transformError(ref, err)
	}
	q.set(transformHeader, t.ref.String())
	if q.r.Method == http.MethodHead {
		return t.head(ctx, version)
	}
	return t.get(ctx, version)
}

// transformArgs reads the arguments of the query.
func (q *request) transformArgs() (map[string]string, error) {
	var args map[string]string
	for _, p := range q.query {
		k, ok := strings.CutPrefix(p.Name, argPrefix)
		if !ok {
			continue
		}
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(p.Value, 0) {
			return nil, errInvalidArgument(p.Name, p.Value, "Arguments of transforms are arg.NAME=VALUE")
		}
		if _, twice := args[k]; twice {
			return nil, errInvalidArgument(p.Name, p.Value, "The argument is given twice")
		}
		if args == nil {
			args = map[string]string{}
		}
		args[k] = p.Value
	}
	return args, nil
}

// transformError is the answer to what kept a transform from running.
func transformError(ref core.TransformRef, err error) error {
	if errors.Is(err, core.ErrNotFound) {
		return refuse(http.StatusNotFound, "NoSuchTransform", "There is no such transform: "+err.Error(), sigv4.Detail{Name: "Transform", Value: ref.String()})
	}
	return err
}

// derive names the result: by the object, the transform with its settings, and
// the arguments. It does not look like a checksum of content.
func (t *transformed) derive(source, version string) {
	h := sha256.New()
	_, _ = io.WriteString(h, source+"\x00"+version) // a hash takes everything
	keys := make([]string, 0, len(t.args))
	for k := range t.args {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		_, _ = io.WriteString(h, "\x00"+k+"="+t.args[k])
	}
	var sum [sha256.Size]byte
	t.etag = hex.EncodeToString(h.Sum(sum[:0])[:16]) + "-t"
}

// unmodified says that the client has the result already, or returns what else its
// conditions refuse.
func (t *transformed) unmodified(modified time.Time) (bool, error) {
	err := t.options.Conditions.CheckRead(t.etag, modified)
	if !errors.Is(err, core.ErrNotModified) {
		return false, err
	}
	t.describe(modified)
	t.q.w.WriteHeader(http.StatusNotModified)
	return true, nil
}

func (t *transformed) describe(modified time.Time) {
	t.q.set("ETag", `"`+t.etag+`"`)
	t.q.set("Last-Modified", modified.UTC().Format(http.TimeFormat))
}

// head describes a result as far as that is known before it is made.
func (t *transformed) head(ctx context.Context, version string) error {
	info, err := t.q.objects.Head(ctx, t.q.bucket, t.q.key, core.GetOptions{Latest: t.options.Latest, Sync: t.options.Sync})
	if err != nil {
		return err
	}
	t.derive(info.ETag, version)
	if done, err := t.unmodified(info.Modified); done || err != nil {
		return err
	}
	t.describe(info.Modified)
	t.q.w.WriteHeader(http.StatusOK)
	return nil
}

// get serves the result.
func (t *transformed) get(ctx context.Context, version string) error {
	q := t.q
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	t.obj, err = q.objects.Get(ctx, q.bucket, q.key, core.GetOptions{Latest: t.options.Latest, Sync: t.options.Sync})
	if err != nil {
		return err
	}
	t.derive(t.obj.ETag, version)
	if done, err := t.unmodified(t.obj.Modified); done || err != nil {
		return errors.Join(err, t.obj.Body.Close())
	}
	data, held := q.whole(), q.whole()
	defer q.wholes.Put(data)
	defer q.wholes.Put(held)
	t.held = held
	call := core.TransformCall{Transform: t.ref, Args: t.args, Object: t.object(), Output: t.output}
	if err := t.body(&call, data, cancel); err != nil {
		return err
	}
	res, err := q.transforms.RunTransform(ctx, call)
	return t.end(ctx, &res, err)
}

// object is what the transform is told.
func (t *transformed) object() core.TransformObject {
	return core.TransformObject{
		Bucket: t.q.bucket.Name.Name, Key: t.q.key, Size: t.obj.Length, ContentType: t.obj.Headers["Content-Type"],
		ETag: t.obj.ETag, Meta: t.obj.Meta,
	}
}

// whole gives an empty buffer, which is to be given back to wholes.
func (g *Gateway) whole() *bytes.Buffer {
	b, _ := g.wholes.Get().(*bytes.Buffer)
	if b == nil {
		return new(bytes.Buffer)
	}
	b.Reset()
	return b
}

// body gives the call the object: small ones as a whole, in data.
func (t *transformed) body(call *core.TransformCall, data *bytes.Buffer, cancel context.CancelFunc) error {
	if t.obj.Length > transformWhole {
		call.Body = core.StoppableBody(t.obj.Body, cancel)
		return nil
	}
	data.Grow(int(t.obj.Length))
	call.Data = data.AvailableBuffer()[:t.obj.Length]
	_, err := io.ReadFull(t.obj.Body, call.Data)
	return errors.Join(err, t.obj.Body.Close())
}

// output begins the answer. A client has one: what else a transform emits is for
// jobs.
func (t *transformed) output(_ context.Context, o core.TransformOutputInfo) (core.TransformOutput, error) {
	if t.out != nil || o.Name != "" {
		return nil, refuse(http.StatusUnprocessableEntity, "TransformFailed",
			"The transform makes several objects of this one; only a job, `shoal etl bucket`, can write them.", t.details()...)
	}
	t.out = &inlineOutput{t: t, info: o}
	return t.out, nil
}

func (t *transformed) details() []sigv4.Detail {
	return []sigv4.Detail{{Name: "Transform", Value: t.ref.Name}, {Name: "Digest", Value: t.ref.Digest}}
}

// end completes the answer, or breaks it off.
func (t *transformed) end(ctx context.Context, res *core.TransformResult, err error) error {
	if err == nil && res.Outcome == core.TransformFailed {
		err = t.failure(res)
	}
	if t.out != nil && t.out.begun {
		if err == nil && t.out.err == nil {
			return nil
		}
		// The status is out. Only a broken connection says that this is not all.
		if ctx.Err() == nil && t.out.err == nil {
			t.q.log.Warn("s3 download through a transform broken off", "bucket", t.q.alias, "key", t.q.key, "transform", t.ref.String(),
				"request_id", string(t.q.idHex[:]), "err", err)
		}
		panic(http.ErrAbortHandler)
	}
	switch {
	case err != nil:
		return transformError(t.ref, err)
	case res.Outcome == core.TransformDropped:
		t.q.set(droppedHeader, "true")
		t.describe(t.obj.Modified)
		t.q.w.WriteHeader(http.StatusNoContent)
		return nil
	case t.out == nil:
		t.out = &inlineOutput{t: t}
	}
	t.q.set("Content-Length", strconv.Itoa(t.held.Len()))
	if err := t.out.begin(); err != nil {
		return err
	}
	_, _ = t.q.w.Write(t.held.Bytes()) // a client that is gone needs no more
	return nil
}

// failure is the answer to what a transform did wrong.
func (t *transformed) failure(res *core.TransformResult) error {
	f := res.Failure
	details := append(t.details(), sigv4.Detail{Name: "Class", Value: f.Class}, sigv4.Detail{Name: "ExitCode", Value: strconv.Itoa(int(f.Code))})
	message := fmt.Sprintf("Transform %s failed on this object: %s: %s", t.ref.Name, f.Class, f.Message)
	if log := strings.ToValidUTF8(strings.TrimSpace(res.Log), "?"); log != "" {
		details = append(details, sigv4.Detail{Name: "Log", Value: log})
		message += "; its log ends: " + log
	}
	return refuse(http.StatusUnprocessableEntity, "TransformFailed", message, details...)
}

// inlineOutput is the answer as the transform writes it. The handler's goroutine
// writes; Abort comes from any.
type inlineOutput struct {
	t    *transformed
	info core.TransformOutputInfo
	err  error // of the connection

	mu      sync.Mutex
	begun   bool // the status is out
	aborted error
}

// begin sends the head, unless the output was aborted.
func (o *inlineOutput) begin() error {
	o.mu.Lock()
	o.begun = o.aborted == nil
	o.mu.Unlock()
	if !o.begun {
		return o.aborted
	}
	q := o.t.q
	o.t.describe(o.t.obj.Modified)
	typ := o.info.ContentType
	if typ == "" {
		typ = o.t.obj.Headers["Content-Type"]
	}
	if typ == "" {
		typ = defaultType
	}
	q.set("Content-Type", typ)
	for k, v := range o.info.Meta {
		q.set("x-amz-meta-"+k, v)
	}
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// Write is part of core.TransformOutput.
func (o *inlineOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	begun, aborted := o.begun, o.aborted
	o.mu.Unlock()
	if aborted != nil {
		return 0, aborted
	}
	if !begun {
		if o.t.held.Len()+len(p) <= transformHeld {
			return o.t.held.Write(p)
		}
		if err := o.begin(); err != nil {
			return 0, err
		}
		if _, err := o.send(o.t.held.Bytes()); err != nil {
			return 0, err
		}
	}
	return o.send(p)
}

func (o *inlineOutput) send(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := o.t.q.w.Write(p)
	if err != nil {
		o.err = err
	}
	return n, err
}

// Close is part of core.TransformOutput: what is held goes out when the transform
// has ended well.
func (o *inlineOutput) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.aborted
}

// Abort is part of core.TransformOutput. A Write that waits for the client ends.
func (o *inlineOutput) Abort(cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if cause == nil {
		cause = context.Canceled
	}
	o.aborted = cause
	if o.begun {
		// One that has no deadlines is bounded by what else ends connections.
		_ = http.NewResponseController(o.t.q.w).SetWriteDeadline(time.Unix(1, 0))
	}
}
