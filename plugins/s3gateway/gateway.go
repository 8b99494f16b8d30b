// Package s3gateway serves the S3 REST API, path style, over an object layer.
// Any S3 client works with it unpatched: requests are verified by Signature
// Version 4 (package sigv4), answers and errors are those of the Amazon S3 API
// Reference. What is not built is refused with 501 NotImplemented, never
// ignored.
//
//	gw, err := s3gateway.New(s3gateway.Options{
//		Objects: objects, Lookup: keys.Secret, Clock: clock, Log: log,
//	})
//	srv := &http.Server{Handler: gw, ConnContext: s3gateway.ConnContext}
//	err = srv.Serve(s3gateway.Listen(listener))
//
// The handler must get requests as they came. In particular no ServeMux may
// be before it: that cleans paths, and "a//b" and "a/../b" are names of
// objects.
//
// Bodies are streamed both ways; what the gateway keeps of a request is small
// and bounded. A body whose signature, length or checksum is wrong ends in an
// error instead of io.EOF, so the object layer stores nothing. A download that
// cannot go on breaks the connection, so no client takes a part for the whole.
//
// An object layer may let the body of [core.Object] implement io.WriterTo;
// then it writes to the connection itself, for instance by sendfile. It must
// then find every fault before it writes the object's last byte, behind which
// nothing can be taken back.
package s3gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// Options configure a gateway. Objects, Lookup and Clock must be set.
type Options struct {
	Objects core.Objects
	// Lookup returns the secret of an access key. It is called once for each
	// request, from many goroutines.
	Lookup func(accessKey string) (secret string, ok bool)
	// Region is the region that clients must sign for, by default us-east-1.
	Region string
	Clock  core.Clock
	// Transforms runs what GET with ?transform= asks for; nil refuses that.
	Transforms Transforms
	// Log gets what an operator should see; nil for nothing.
	Log *slog.Logger
}

// Transforms runs transforms of objects on their way to a client.
type Transforms interface {
	core.TransformRunner
	// Resolve returns what a reference stands for now, with its digest, and a name
	// for that and the settings with which it runs. What does not exist is
	// [core.ErrNotFound].
	Resolve(ctx context.Context, ref core.TransformRef) (pinned core.TransformRef, version string, err error)
}

// Gateway is the handler. It is safe for concurrent use and holds nothing that
// must be closed.
type Gateway struct {
	objects core.Objects
	// transforms is nil where there are none.
	transforms Transforms
	clock      core.Clock
	log        *slog.Logger
	region     string
	verify     *sigv4.Verifier
	buffers    sync.Pool // of *[copyBuffer]byte
	wholes     sync.Pool // of *bytes.Buffer, for what passes through transforms as a whole
}

// New returns a gateway.
func New(o Options) (*Gateway, error) {
	if o.Objects == nil || o.Lookup == nil || o.Clock == nil {
		return nil, errors.New("s3gateway: Objects, Lookup and Clock must be set")
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Gateway{
		objects: o.Objects, transforms: o.Transforms, clock: o.Clock, log: o.Log, region: o.Region,
		verify: sigv4.NewVerifier(sigv4.Options{Region: o.Region, Lookup: o.Lookup, Now: o.Clock.Now}),
	}, nil
}

// request is one request on its way. It lives as long as ServeHTTP.
type request struct {
	*Gateway
	w  http.ResponseWriter
	r  *http.Request
	id core.RequestID

	alias, key string // as in the path
	query      sigv4.Query
	auth       sigv4.Auth
	bucket     core.Bucket
	body       *sigv4.Body // once opened
	raw        rawBody     // of body, for objects and parts
	trailerErr error       // what was wrong with the body's trailer

	// Memory that saves allocations.
	idHex  [32]byte
	params [6]sigv4.Param
	values [16]string
	used   int
}

// ServeHTTP implements [http.Handler].
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 && strings.EqualFold(first(r.Header, "Expect"), "100-continue") {
		// net/http answers at once where there is no body to wait for, as it
		// may. But botocore, once it got another status than 100, takes that
		// status for the next answer on the connection, and hangs there.
		w.WriteHeader(http.StatusContinue)
	}
	q := &request{Gateway: g, w: w, r: r, id: core.NewRequestID()}
	q.set("Server", "Shoal")
	q.set("x-amz-request-id", q.requestID())
	if err := q.serve(r.Context()); err != nil {
		q.drain()
		q.fail(r.Context(), err)
	}
	if q.body != nil {
		q.body.Release()
	}
}

// serve verifies the request and finds who answers it.
func (q *request) serve(ctx context.Context) error {
	if q.r.Method == http.MethodOptions {
		return errNoCORS()
	}
	var err error
	if q.query, err = sigv4.ParseQuery(q.params[:0], q.r.URL.RawQuery); err != nil {
		return err
	}
	if q.auth, err = q.verify.Verify(q.r); err != nil {
		return err
	}
	path, ok := strings.CutPrefix(q.r.URL.Path, "/")
	if !ok {
		return errInvalidURI()
	}
	q.alias, q.key, _ = strings.Cut(path, "/")
	if path == "" {
		return q.serveService(ctx)
	}
	if core.ValidateBucket(q.alias) != nil {
		return errInvalidBucketName(q.alias)
	}
	if err := q.checkHeaders(); err != nil {
		return err
	}
	if q.key == "" {
		return q.serveBucket(ctx)
	}
	if err := checkKey(q.key); err != nil {
		return err
	}
	return q.serveObject(ctx)
}

func (q *request) serveService(ctx context.Context) error {
	if q.r.Method == http.MethodGet {
		return q.listBuckets(ctx)
	}
	return errMethodNotAllowed(q.r.Method)
}

// subresource is the query parameter that chooses the operation, "" for none.
func (q *request) subresource() string {
	for _, p := range q.query {
		switch p.Name {
		case "accelerate", "acl", "analytics", "append", "attributes", "cors", "delete", "encryption", "intelligent-tiering", "inventory",
			"legal-hold", "lifecycle", "location", "logging", "metadataConfiguration", "metadataTable", "metrics", "notification", "object-lock",
			"ownershipControls", "policy", "policyStatus", "publicAccessBlock", "renameObject", "replication", "requestPayment", "restore",
			"retention", "select", "session", "tagging", "torrent", "uploadId", "uploads", "versioning", "versions", "website":
			return p.Name
		}
	}
	return ""
}

func (q *request) serveBucket(ctx context.Context) error {
	sub := q.subresource()
	if q.r.Method == http.MethodPut && sub == "" {
		return q.createBucket(ctx)
	}
	var err error
	if q.bucket, err = q.objects.Bucket(ctx, q.alias); err != nil {
		return err
	}
	switch q.r.Method {
	case http.MethodGet:
		switch sub {
		case "":
			return q.listObjects(ctx)
		case "acl":
			return q.writeACL()
		case "location":
			return q.bucketLocation()
		case "versioning":
			return q.bucketVersioning()
		case "uploads":
			return q.listUploads(ctx)
		}
		if err := errNotConfigured(sub); err != nil {
			return err
		}
	case http.MethodHead:
		if sub == "" {
			return q.headBucket()
		}
	case http.MethodDelete:
		if sub == "" {
			return q.deleteBucket(ctx)
		}
	case http.MethodPost:
		if sub == "delete" {
			return q.deleteObjects(ctx)
		}
	case http.MethodPut:
	default:
		return errMethodNotAllowed(q.r.Method)
	}
	return errNotImplemented(q.r.Method + " of a bucket's " + orItself(sub))
}

func orItself(sub string) string {
	if sub == "" {
		return "content (form upload)"
	}
	return sub
}

func (q *request) serveObject(ctx context.Context) error {
	if v, ok := q.query.Lookup("versionId"); ok && v != "null" {
		return errInvalidArgument("versionId", v, "Invalid version id specified: versions are not kept; every object has the version \"null\".")
	}
	var err error
	if q.bucket, err = q.objects.Bucket(ctx, q.alias); err != nil {
		return err
	}
	if err := q.checkStorageClass(); err != nil {
		return err
	}
	sub := q.subresource()
	if name, ok := q.query.Lookup("transform"); ok {
		return q.transformObject(ctx, name, sub)
	}
	if f := q.operation(sub); f != nil {
		return f(q, ctx)
	}
	switch q.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete:
		return errNotImplemented(q.r.Method + " of an object's " + orItself(sub))
	}
	return errMethodNotAllowed(q.r.Method)
}

// operation finds what serves a request for an object, nil for nothing.
func (q *request) operation(sub string) func(*request, context.Context) error {
	switch q.r.Method {
	case http.MethodGet:
		switch sub {
		case "":
			return (*request).getObject
		case "acl":
			return (*request).objectACL
		case "tagging":
			return (*request).getTags
		case "uploadId":
			return (*request).listParts
		}
	case http.MethodHead:
		if sub == "" {
			return (*request).headObject
		}
	case http.MethodPut:
		_, copies := q.r.Header["X-Amz-Copy-Source"]
		switch {
		case sub == "" && copies:
			return (*request).copyObject
		case sub == "":
			return (*request).putObject
		case sub == "uploadId" && copies:
			return (*request).copyPart
		case sub == "uploadId":
			return (*request).putPart
		case sub == "tagging":
			return (*request).putTags
		}
	case http.MethodPost:
		switch sub {
		case "uploads":
			return (*request).createUpload
		case "uploadId":
			return (*request).completeUpload
		}
	case http.MethodDelete:
		switch sub {
		case "":
			return (*request).deleteObject
		case "tagging":
			return (*request).deleteTags
		case "uploadId":
			return (*request).abortUpload
		}
	}
	return nil
}
