package s3gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// transforms are functions by name, all of one digest.
type transforms map[string]func(ctx context.Context, c core.TransformCall, in io.Reader) (core.TransformResult, error)

const digest = "sha256:00ff"

// Resolve is part of Transforms.
func (x transforms) Resolve(_ context.Context, ref core.TransformRef) (core.TransformRef, string, error) {
	if x[ref.Name] == nil || ref.Digest != "" && ref.Digest != digest {
		return ref, "", fmt.Errorf("transform %s: %w", ref, core.ErrNotFound)
	}
	return core.TransformRef{Name: ref.Name, Digest: digest}, "v1", nil
}

// RunTransform is part of core.TransformRunner.
func (x transforms) RunTransform(ctx context.Context, c core.TransformCall) (core.TransformResult, error) {
	var in io.Reader = bytes.NewReader(c.Data)
	if c.Body != nil {
		in = c.Body
		defer func() { _ = c.Body.Close() }()
	}
	return x[c.Transform.Name](ctx, c, in)
}

func done() (core.TransformResult, error) {
	return core.TransformResult{Outcome: core.TransformDone}, nil
}

func failed(class, log string) (core.TransformResult, error) {
	return core.TransformResult{Failure: &core.TransformFailure{Class: class, Code: 3, Message: "it is odd"}, Log: log}, nil
}

// upper writes as it reads.
func upper(ctx context.Context, c core.TransformCall, in io.Reader) (core.TransformResult, error) {
	out, err := c.Output(ctx, core.TransformOutputInfo{ContentType: "text/loud", Meta: map[string]string{"k": "v"}})
	if err != nil {
		return core.TransformResult{}, err
	}
	buf := make([]byte, 10_000)
	for {
		n, err := in.Read(buf)
		if _, werr := out.Write(append(bytes.ToUpper(buf[:n]), c.Args["tail"]...)); werr != nil {
			return core.TransformResult{}, werr
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return core.TransformResult{}, err
		}
	}
	if err := out.Close(); err != nil {
		return core.TransformResult{}, err
	}
	return done()
}

func serveTransforms(t *testing.T) *endpoint {
	e := serve(t, nil, false)
	objects := e.objects
	e = serveWith(t, Options{Objects: objects, Lookup: lookup, Clock: wall{}, Transforms: transforms{
		"upper": upper,
		"drop": func(context.Context, core.TransformCall, io.Reader) (core.TransformResult, error) {
			return core.TransformResult{Outcome: core.TransformDropped}, nil
		},
		"fail": func(context.Context, core.TransformCall, io.Reader) (core.TransformResult, error) {
			return failed("exit", "line 7: <odd>")
		},
		"late": func(ctx context.Context, c core.TransformCall, in io.Reader) (core.TransformResult, error) {
			if _, err := upper(ctx, c, in); err != nil {
				return core.TransformResult{}, err
			}
			return failed("trap", "")
		},
		"busy": func(context.Context, core.TransformCall, io.Reader) (core.TransformResult, error) {
			return core.TransformResult{}, fmt.Errorf("all turns are taken: %w", core.ErrUnavailable)
		},
		"many": func(ctx context.Context, c core.TransformCall, _ io.Reader) (core.TransformResult, error) {
			_, err := c.Output(ctx, core.TransformOutputInfo{Name: "part"})
			return core.TransformResult{}, err
		},
		"what": func(ctx context.Context, c core.TransformCall, _ io.Reader) (core.TransformResult, error) {
			return upper(ctx, c, strings.NewReader(fmt.Sprint(c.Object.Bucket, " ", c.Object.Key, " ", c.Object.Size, " ", c.Object.Meta["m"])))
		},
	}}, false)
	e.bucket(t, "bkt")
	for key, body := range map[string]string{"small": "abc", "empty": "", "large": strings.Repeat("x", 300_000)} {
		e.raw(t, http.MethodPut, "/bkt/"+key, headers("x-amz-meta-m", "mm"), body).want(t, "put", http.StatusOK, "")
	}
	return e
}

func TestTransforms(t *testing.T) {
	e := serveTransforms(t)
	get := func(target string, h ...string) reply { return e.raw(t, http.MethodGet, target, headers(h...), "") }

	r := get("/bkt/small?transform=upper")
	r.want(t, "small", http.StatusOK, "")
	if h := r.header; r.body != "ABC" || h.Get("Content-Length") != "3" || h.Get("X-Shoal-Transform") != "upper@"+digest ||
		h.Get("Content-Type") != "text/loud" || h.Get("x-amz-meta-k") != "v" || h.Get("Last-Modified") == "" {
		t.Errorf("small: %q, %v", r.body, h)
	}
	tag := r.header.Get("ETag")
	if plain := get("/bkt/small").header.Get("ETag"); tag == plain || tag == "" {
		t.Errorf("the result's ETag is %s, the object's %s", tag, plain)
	}
	if r := get("/bkt/large?transform=upper@" + digest); r.body != strings.Repeat("X", 300_000) {
		t.Errorf("large: %d bytes", len(r.body))
	}
	if r := get("/bkt/empty?transform=upper"); r.status != http.StatusOK || r.body != "" || r.header.Get("Content-Length") != "0" {
		t.Errorf("empty: %d %q", r.status, r.body)
	}
	if r := get("/bkt/small?transform=what"); r.body != "BKT SMALL 3 MM" {
		t.Errorf("what a transform is told: %q", r.body)
	}

	// Conditions are on the result.
	get("/bkt/small?transform=upper", "If-None-Match", tag).want(t, "if-none-match", http.StatusNotModified, "")
	get("/bkt/small?transform=upper", "If-Match", tag).want(t, "if-match", http.StatusOK, "")
	get("/bkt/small?transform=upper&arg.tail=1", "If-Match", tag).want(t, "other arguments", http.StatusPreconditionFailed, "PreconditionFailed")
	if r := get("/bkt/small?transform=upper&arg.tail=%21"); r.body != "ABC!!" && r.body != "ABC!" {
		t.Errorf("arguments: %q", r.body)
	}
	head := e.raw(t, http.MethodHead, "/bkt/small?transform=upper", nil, "")
	if head.status != http.StatusOK || head.header.Get("ETag") != tag {
		t.Errorf("head: %d, %v", head.status, head.header)
	}

	r = get("/bkt/small?transform=drop")
	if r.status != http.StatusNoContent || r.header.Get("X-Shoal-Dropped") != "true" {
		t.Errorf("dropped: %d %v", r.status, r.header)
	}
}

func TestTransformsThatFail(t *testing.T) {
	e := serveTransforms(t)
	for target, want := range map[string]struct {
		status int
		code   string
		text   string
	}{
		"/bkt/small?transform=fail":                  {http.StatusUnprocessableEntity, "TransformFailed", "line 7: &lt;odd&gt;"},
		"/bkt/small?transform=late":                  {http.StatusUnprocessableEntity, "TransformFailed", "trap"},
		"/bkt/small?transform=many":                  {http.StatusUnprocessableEntity, "TransformFailed", "several objects"},
		"/bkt/small?transform=nobody":                {http.StatusNotFound, "NoSuchTransform", "nobody"},
		"/bkt/small?transform=":                      {http.StatusNotFound, "NoSuchTransform", ""},
		"/bkt/small?transform=upper@sha256:1":        {http.StatusNotFound, "NoSuchTransform", "sha256:1"},
		"/bkt/nothing?transform=upper":               {http.StatusNotFound, "NoSuchKey", ""},
		"/bkt/small?transform=busy":                  {http.StatusServiceUnavailable, "ServiceUnavailable", "turns"},
		"/bkt/small?transform=gunzip%20%3E%3Eupper":  {http.StatusNotImplemented, "NotImplemented", "chains"},
		"/bkt/small?transform=upper&arg.=x":          {http.StatusBadRequest, "InvalidArgument", ""},
		"/bkt/small?transform=upper&arg.a=1&arg.a=2": {http.StatusBadRequest, "InvalidArgument", "twice"},
		"/bkt/small?transform=upper&partNumber=1":    {http.StatusBadRequest, "InvalidRequest", "whole"},
		"/bkt/small?transform=upper&tagging":         {http.StatusBadRequest, "InvalidRequest", "GET and HEAD"},
	} {
		r := e.raw(t, http.MethodGet, target, nil, "")
		r.want(t, target, want.status, want.code)
		if !strings.Contains(r.body, want.text) {
			t.Errorf("%s: %q is not in %s", target, want.text, r.body)
		}
	}
	e.raw(t, http.MethodGet, "/bkt/small?transform=upper", headers("Range", "bytes=0-1"), "").want(t, "range", http.StatusBadRequest, "InvalidRequest")
	e.raw(t, http.MethodPut, "/bkt/small?transform=upper", nil, "x").want(t, "put", http.StatusBadRequest, "InvalidRequest")

	// What fails once the status is out breaks the body off.
	resp, err := e.http.Do(e.request(t, http.MethodGet, "/bkt/large?transform=late", nil, "", "UNSIGNED-PAYLOAD"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a failure behind %d bytes looks like an end", len(b))
	}
}

// TestTransformHangUp has a client go away whose transform is writing to it.
func TestTransformHangUp(t *testing.T) {
	e := serve(t, nil, false)
	ended := make(chan error, 1)
	e = serveWith(t, Options{Objects: e.objects, Lookup: lookup, Clock: wall{}, Transforms: transforms{
		"flood": func(ctx context.Context, c core.TransformCall, _ io.Reader) (res core.TransformResult, err error) {
			defer func() { ended <- err }()
			out, err := c.Output(ctx, core.TransformOutputInfo{})
			if err != nil {
				return res, err
			}
			stop := context.AfterFunc(ctx, func() { out.Abort(context.Cause(ctx)) })
			defer stop()
			for {
				if _, err := out.Write(make([]byte, 64<<10)); err != nil {
					return res, err
				}
			}
		},
	}}, false)
	e.bucket(t, "bkt")
	e.raw(t, http.MethodPut, "/bkt/k", nil, "x").want(t, "put", http.StatusOK, "")
	resp, err := e.http.Do(e.request(t, http.MethodGet, "/bkt/k?transform=flood", nil, "", "UNSIGNED-PAYLOAD"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the transform went on")
	}
}
