package cloudtest

import (
	"net/http"
	"net/url"
	"strings"
)

// Op is a kind of request.
type Op string

// The kinds of requests, in S3's words. Of GCS: an upload in one request is a
// PutObject; a resumable one is a CreateUpload and then PutPart for each chunk; compose is
// CompleteUpload, rewrite is Copy, an object's metadata is HeadObject.
const (
	ListBuckets    Op = "ListBuckets"
	HeadBucket     Op = "HeadBucket"
	CreateBucket   Op = "CreateBucket"
	DeleteBucket   Op = "DeleteBucket"
	List           Op = "List"
	GetObject      Op = "GetObject"
	HeadObject     Op = "HeadObject"
	PutObject      Op = "PutObject"
	DeleteObject   Op = "DeleteObject"
	DeleteObjects  Op = "DeleteObjects"
	Copy           Op = "Copy"
	CreateUpload   Op = "CreateUpload"
	PutPart        Op = "PutPart"
	CopyPart       Op = "CopyPart"
	CompleteUpload Op = "CompleteUpload"
	AbortUpload    Op = "AbortUpload"
	ListParts      Op = "ListParts"
	ListUploads    Op = "ListUploads"
	Tags           Op = "Tags"
	Other          Op = "Other"
)

// Writes says whether the operation changes anything.
func (o Op) Writes() bool {
	switch o {
	case CreateBucket, DeleteBucket, PutObject, DeleteObject, DeleteObjects, Copy,
		CreateUpload, PutPart, CopyPart, CompleteUpload, AbortUpload:
		return true
	}
	return false
}

// request is what a request is about. Bucket and Key are as the URL's path says,
// so bucket names in the host's name are not understood.
type request struct {
	op          Op
	bucket, key string
}

func classify(k Kind, r *http.Request) request {
	path := r.URL.EscapedPath()
	if k == GCS {
		for _, prefix := range []string{"/upload/storage/v1/b", "/download/storage/v1/b", "/storage/v1/b"} {
			if rest, ok := strings.CutPrefix(path, prefix); ok && (rest == "" || rest[0] == '/') {
				return classifyJSON(r, prefix, strings.TrimPrefix(rest, "/"))
			}
		}
		if strings.HasPrefix(path, "/upload/resumable/") {
			return request{op: PutPart}
		}
		if strings.HasPrefix(path, "/_internal/") || strings.HasPrefix(path, "/batch/") {
			return request{op: Other}
		}
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	q := request{bucket: unescape(bucket), key: unescape(key)}
	switch {
	case q.bucket == "":
		q.op = of(r.Method, map[string]Op{http.MethodGet: ListBuckets})
	case q.key == "":
		q.op = bucketOp(r)
	default:
		q.op = objectOp(r)
	}
	return q
}

func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

func of(method string, ops map[string]Op) Op {
	if op, ok := ops[method]; ok {
		return op
	}
	return Other
}

func bucketOp(r *http.Request) Op {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && q.Has("delete"):
		return DeleteObjects
	case r.Method == http.MethodGet && q.Has("uploads"):
		return ListUploads
	case r.Method == http.MethodGet && (q.Has("list-type") || q.Has("prefix") || q.Has("max-keys") || r.URL.RawQuery == ""):
		return List
	}
	for name := range q {
		if name != "x-id" && name != "project" {
			return Other // location, versioning, policy ...
		}
	}
	return of(r.Method, map[string]Op{
		http.MethodGet: List, http.MethodHead: HeadBucket, http.MethodPut: CreateBucket, http.MethodDelete: DeleteBucket,
	})
}

func objectOp(r *http.Request) Op {
	q := r.URL.Query()
	copies := r.Header.Get("X-Amz-Copy-Source") != ""
	switch {
	case q.Has("tagging"):
		return Tags
	case q.Has("uploadId"):
		part := PutPart
		if copies {
			part = CopyPart
		}
		return of(r.Method, map[string]Op{
			http.MethodGet: ListParts, http.MethodPut: part, http.MethodPost: CompleteUpload, http.MethodDelete: AbortUpload,
		})
	case r.Method == http.MethodPost && q.Has("uploads"):
		return CreateUpload
	case q.Has("acl") || q.Has("attributes") || q.Has("retention") || q.Has("legal-hold"):
		return Other
	case copies && r.Method == http.MethodPut:
		return Copy
	}
	return of(r.Method, map[string]Op{
		http.MethodGet: GetObject, http.MethodHead: HeadObject, http.MethodPut: PutObject, http.MethodDelete: DeleteObject,
	})
}

// classifyJSON is for GCS's JSON API; rest is what follows ".../b/".
func classifyJSON(r *http.Request, prefix, rest string) request {
	bucket, rest, _ := strings.Cut(rest, "/")
	q := request{bucket: unescape(bucket)}
	query := r.URL.Query()
	if bucket == "" {
		q.op = of(r.Method, map[string]Op{http.MethodGet: ListBuckets, http.MethodPost: CreateBucket})
		return q
	}
	folder, rest, _ := strings.Cut(rest, "/")
	switch {
	case folder == "":
		q.op = of(r.Method, map[string]Op{http.MethodGet: HeadBucket, http.MethodDelete: DeleteBucket})
		return q
	case folder != "o":
		q.op = Other
		return q
	case strings.HasPrefix(prefix, "/upload"):
		q.key = query.Get("name")
		q.op = PutObject
		if resumable := query.Get("uploadType") == "resumable" || query.Has("upload_id"); resumable {
			q.op = of(r.Method, map[string]Op{http.MethodPost: CreateUpload, http.MethodPut: PutPart, http.MethodDelete: AbortUpload})
		}
		return q
	case rest == "":
		q.op = of(r.Method, map[string]Op{http.MethodGet: List})
		return q
	}
	// A key's own slashes are escaped, so what is behind one is an action.
	key, action, _ := strings.Cut(rest, "/")
	q.key = unescape(key)
	switch {
	case strings.HasPrefix(action, "rewriteTo/") || strings.HasPrefix(action, "copyTo/"):
		q.op = Copy
	case action == "compose":
		q.op = CompleteUpload
	case action != "":
		q.op = Other
	case r.Method == http.MethodGet && (query.Get("alt") == "media" || strings.HasPrefix(prefix, "/download")):
		q.op = GetObject
	default:
		q.op = of(r.Method, map[string]Op{
			http.MethodGet: HeadObject, http.MethodHead: HeadObject, http.MethodDelete: DeleteObject,
			http.MethodPut: Other, http.MethodPatch: Other,
		})
	}
	return q
}
