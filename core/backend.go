package core

import (
	"context"
	"io"
	"time"
)

// RemoteVersion is a backend's name for one state of a remote object: what its
// preconditions take. S3: the ETag, without quotes. GCS: the generation and
// metageneration. Others: something that changes whenever the object does. ""
// is not known.
type RemoteVersion string

// RemoteObject describes an object in a backend.
type RemoteObject struct {
	Key     string
	Size    int64
	Version RemoteVersion
	// ETag is what S3 clients are shown, without quotes. It changes with the
	// content.
	ETag     string
	Modified time.Time
	// Headers, Meta and Tags are as in [Record]. Of a listing they are empty, but for
	// Meta where [RemoteListing] says so.
	// The storage class is the header X-Amz-Storage-Class, where there is one.
	Headers map[string]string
	Meta    map[string]string
	Tags    map[string]string
	// Checksum is one that the backend keeps for the whole object, if any.
	Checksum Checksum
	// MD5 is that of the whole object, 16 bytes, where the backend has one.
	MD5 []byte
	// NoRanges: of an answer to a Get of a range. The remote sends the whole all the
	// same, and what lies before the range was read and thrown away.
	NoRanges bool
}

// RemoteCondition is a precondition on what is there before a write. The zero
// value has none.
type RemoteCondition struct {
	// Absent: only if there is no such object.
	Absent bool
	// Version, if not "": only if the object is there in this version.
	Version RemoteVersion
}

// IsZero says whether there is no condition.
func (c RemoteCondition) IsZero() bool { return c == RemoteCondition{} }

// RemoteGet says what to read.
type RemoteGet struct {
	// Offset and Length are the range; Length -1 is to the end, 0 is ErrInvalid. A
	// range that begins at or beyond the end is ErrRange; of an empty object every
	// range is, but for the whole: 0 and -1.
	Offset, Length int64
	// Version, if not "", asks for this version: another one is ErrPrecondition.
	Version RemoteVersion
}

// RemotePut says how to write.
type RemotePut struct {
	// Size is the length of the body in bytes. It is always known.
	Size int64
	// Open opens the body from its beginning. It may be called again, once the
	// one before was closed, to repeat the request.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// MD5 of the body, 16 bytes, if it is known. A backend has the remote check
	// it, or compares it with the answer.
	MD5                 []byte
	Headers, Meta, Tags map[string]string
	If                  RemoteCondition
}

// RemotePart is a part of a remote upload.
type RemotePart struct {
	Number  int
	Size    int64
	ETag    string
	Version RemoteVersion // where parts are objects of their own
}

// RemoteListOptions say what to list.
type RemoteListOptions struct {
	Prefix    string
	Delimiter string
	// After leaves out all keys that are not above it; Until, if not "", all that
	// are not below it. Both are keys, so that any node can go on anywhere. Whether
	// a prefix within which After lies is listed depends on the remote.
	After, Until string
	Max          int
	// Meta asks for the objects' metadata as well, of a remote whose listings can tell
	// it.
	Meta bool
}

// RemoteListing is a page of a listing, in order of bytes. A page costs one
// request as long as the backend's pages are not smaller.
type RemoteListing struct {
	Objects  []RemoteObject
	Prefixes []string
	// More says that the listing goes on after Next.
	More bool
	Next string
	// Meta says that the objects have their Meta, as HEAD has it.
	Meta bool
}

// RemoteAbilities are what a backend can do and its limits.
type RemoteAbilities struct {
	// PutIf and DeleteIf: the remote holds to conditions, for sure. A server
	// that ignores unknown headers does not.
	PutIf, DeleteIf bool
	// ReadOnly: there are no writes. NoList: there are no listings.
	ReadOnly, NoList bool
	// PageSize is the most keys of a page. PartSize is the least and MaxParts
	// the most of a part that is not the last; 0 where there are no uploads.
	PageSize           int
	PartSize, MaxParts int64
}

// Backend is storage that others run: a cloud, an HTTP server, a directory. One
// Backend speaks to one endpoint under one account. All methods may be called
// concurrently, and return soon after ctx has ended.
//
// It makes each request once: repeating, backing off, limits and counting are its
// caller's (core/remote). Errors are ErrNotFound, ErrNoSuchBucket,
// ErrPermission, ErrPrecondition, ErrRange, ErrWrongRegion, ErrThrottled (with a
// [RetryAfter] where the remote said when), ErrInvalid for what this backend
// cannot hold, ErrTooLarge, ErrChecksum for a body that is not as its MD5 says,
// ErrExists, ErrNoSuchUpload, ErrInvalidPart and ErrPartTooSmall, ErrUnsupported of
// package errors; ErrUnavailable for a request that surely did nothing (no
// connection, 503); ErrUnknownOutcome for a write whose answer did not come. What
// they say ends with the remote's own words. core/backendtest checks all of it.
type Backend interface {
	Abilities() RemoteAbilities
	// Buckets lists the buckets that the account may list.
	Buckets(ctx context.Context) ([]string, error)
	// HeadBucket says whether the bucket is there and accessible.
	HeadBucket(ctx context.Context, bucket string) error
	List(ctx context.Context, bucket string, o RemoteListOptions) (RemoteListing, error)
	Head(ctx context.Context, bucket, key string) (RemoteObject, error)
	// Get opens a run of bytes. The object's Size is that of the whole. The body
	// is what was asked for, to the last byte, or Read fails: never io.EOF early.
	// Tags may be missing; see [RemoteTagger].
	Get(ctx context.Context, bucket, key string, o RemoteGet) (RemoteObject, io.ReadCloser, error)
	// Put writes an object whole.
	Put(ctx context.Context, bucket, key string, o RemotePut) (RemoteObject, error)
	// Delete removes an object. One that is not there is no error, unless If
	// names a version: then ErrPrecondition or ErrNotFound.
	Delete(ctx context.Context, bucket, key string, c RemoteCondition) error
}

// RemoteUploader is an optional ability of a [Backend]: to write an object in
// parts, in parallel. The object appears at CompleteUpload, whole.
type RemoteUploader interface {
	// CreateUpload begins an upload; of o, Size, Headers, Meta and Tags count.
	CreateUpload(ctx context.Context, bucket, key string, o RemotePut) (upload string, err error)
	PutPart(ctx context.Context, bucket, key, upload string, number int, o RemotePut) (RemotePart, error)
	// CompleteUpload ends the upload under a condition.
	CompleteUpload(ctx context.Context, bucket, key, upload string, parts []RemotePart, c RemoteCondition) (RemoteObject, error)
	// AbortUpload removes what was uploaded. One that is not there is no error.
	AbortUpload(ctx context.Context, bucket, key, upload string) error
}

// RemoteCopier is an optional ability of a [Backend]: to copy an object without
// its bytes leaving the remote.
type RemoteCopier interface {
	// Copy copies an object of fromBucket in the given version, "" for any; of o,
	// Headers, Meta and Tags replace the source's if not nil, and If holds. It may
	// make several requests.
	Copy(ctx context.Context, fromBucket, fromKey string, v RemoteVersion, bucket, key string, o RemotePut) (RemoteObject, error)
}

// RemoteTagger is an optional ability of a [Backend] whose Get and Head do not
// tell an object's tags: they set the header X-Amz-Tagging-Count if it has some.
type RemoteTagger interface {
	Tags(ctx context.Context, bucket, key string) (map[string]string, error)
}

// RemoteBucketMaker is an optional ability of a [Backend]: to create a bucket.
type RemoteBucketMaker interface {
	CreateBucket(ctx context.Context, bucket string) error
}

// RetryAfter is an error that says when to come again.
type RetryAfter interface {
	error
	RetryAfter() time.Duration
}

// RemoteSettings say how to reach the backend of a bucket. They come from the
// node's configuration, overridden by what the bucket says. The zero value is the
// provider's own default: its public endpoint, the SDK's own credentials.
type RemoteSettings struct {
	// Account names a section of the configuration to start from; "" is the
	// provider's unnamed one.
	Account string `json:"account,omitempty"`
	// Endpoint is a URL, Region and Profile are as the AWS SDK has them.
	Endpoint string `json:"endpoint,omitempty"`
	Region   string `json:"region,omitempty"`
	Profile  string `json:"profile,omitempty"`
	// Name is the bucket's name at the remote, if it is another one.
	Name string `json:"name,omitempty"`
	// Anonymous: requests are not signed.
	Anonymous bool `json:"anonymous,omitempty"`
	// PathStyle: the bucket is in the path, not in the host's name.
	PathStyle bool `json:"path_style,omitempty"`
	// Conditions: the server is known to hold to preconditions on writes.
	Conditions bool `json:"conditions,omitempty"`
}
