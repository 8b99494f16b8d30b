package core

import (
	"context"
	"io"
	"time"
)

// ByteRange is what an HTTP Range header asks for: bytes Start to End, both
// included. Start -1: the last End bytes. End -1: to the end.
type ByteRange struct{ Start, End int64 }

// Conditions are the preconditions of a request (RFC 9110, section 13). ETags
// come without quotes; "*" stands for any. The zero value has none.
type Conditions struct {
	IfMatch           []string
	IfNoneMatch       []string
	IfModifiedSince   time.Time
	IfUnmodifiedSince time.Time
}

// PutOptions say how an object is to be written.
type PutOptions struct {
	// Size is the length of the body, -1 if unknown. A body of another
	// length is an error, and nothing is kept.
	Size       int64
	Headers    map[string]string
	Meta       map[string]string
	Tags       map[string]string
	Conditions Conditions
	// MD5 is the expected MD5 of the body, if the client sent one (16 bytes).
	MD5 []byte
	// Checksum asks for an S3 checksum. With Value "" it is computed and
	// kept; otherwise it must match. The body may deliver the value only at
	// its end: then Trailer returns it (after io.EOF).
	Checksum Checksum
	Trailer  func() (Checksum, error)
	// Request makes a repeated call return the first one's answer. Fresh says
	// that it was made for this call, so that there was no earlier one.
	Request RequestID
	Fresh   bool
	// Origin is set by jobs.
	Origin Origin
}

// ObjectInfo describes an object without its data.
type ObjectInfo struct {
	Bucket BucketName
	Key    string
	Record // Inline and Extents are unset
	// Version is the object's place in its slot's history.
	Version Version
}

// GetOptions say what to read.
type GetOptions struct {
	Range      *ByteRange
	Conditions Conditions
	// Part, if not 0, is the part number to read instead of Range.
	Part int
	// SendFile says that the body is written to a client's connection as it
	// is. Then, in a bucket whose policy asks for it, a body that is an
	// [io.WriterTo] may hand files to a writer that is an [io.ReaderFrom],
	// whose bytes nobody has verified.
	SendFile bool
	// Latest asks the remote of a remote bucket for its version: if it has
	// another than the one that is present, that is read, and it decides whether
	// there is such an object. Sync, which implies Latest, then also drops the
	// copy of one that is not there any more. Of other buckets they say nothing.
	Latest, Sync bool
}

// Object is an open object. The caller closes Body. Enough shards are open
// already that, but for further failures, the whole body will come; a read
// that cannot go on returns an error, never a short body.
type Object struct {
	ObjectInfo
	// Start and Length are the bytes of the object that Body delivers.
	Start, Length int64
	Body          io.ReadCloser
}

// ListOptions say what to list.
type ListOptions struct {
	Prefix    string
	Delimiter string
	// After leaves out all keys that are not above it.
	After string
	Max   int
}

// Listing is a page of a listing: objects and common prefixes in one order.
type Listing struct {
	Objects  []ObjectInfo
	Prefixes []string
	// More says that the listing goes on; Next is the After of the next page.
	More bool
	Next string
}

// Upload is a multipart upload under way.
type Upload struct {
	Key       string
	ID        string
	Initiated time.Time
	Record    Record
}

// Part is a part of an upload.
type Part struct {
	Number   int
	Size     int64
	ETag     string
	Modified time.Time
	Checksum Checksum
}

// CompletePart names a part in a Complete request. ETag has no quotes.
type CompletePart struct {
	Number   int
	ETag     string
	Checksum Checksum
}

// CopyOptions say how an object is copied within the cluster.
type CopyOptions struct {
	// Source conditions, of the x-amz-copy-source-if- headers.
	Source Conditions
	// Replace takes Headers and Meta from Put instead of from the source;
	// ReplaceTags does so for Tags.
	Replace     bool
	ReplaceTags bool
	Range       *ByteRange // for UploadPartCopy
	Put         PutOptions
}

// Objects is the object layer as gateways see it. Every node serves all of it.
// Errors are the sentinels of this package. Calls are atomic: after an error
// other than ErrUnknownOutcome or ErrUnavailable nothing has changed.
type Objects interface {
	CreateBucket(ctx context.Context, b BucketName, p *Policy, alias string) (Bucket, error)
	Bucket(ctx context.Context, alias string) (Bucket, error)
	Buckets(ctx context.Context) ([]Bucket, error)
	DeleteBucket(ctx context.Context, alias string) error

	Put(ctx context.Context, bucket Bucket, key string, body io.Reader, o PutOptions) (ObjectInfo, error)
	Get(ctx context.Context, bucket Bucket, key string, o GetOptions) (*Object, error)
	Head(ctx context.Context, bucket Bucket, key string, o GetOptions) (ObjectInfo, error)
	// Delete of a key that does not exist is no error.
	Delete(ctx context.Context, bucket Bucket, key string, c Conditions, r RequestID) error
	List(ctx context.Context, bucket Bucket, o ListOptions) (Listing, error)
	Copy(ctx context.Context, from Bucket, fromKey string, to Bucket, toKey string, o CopyOptions) (ObjectInfo, error)

	CreateUpload(ctx context.Context, bucket Bucket, key string, o PutOptions) (Upload, error)
	PutPart(ctx context.Context, bucket Bucket, key, upload string, number int, body io.Reader, o PutOptions) (Part, error)
	CopyPart(ctx context.Context, from Bucket, fromKey string, to Bucket, toKey, upload string, number int, o CopyOptions) (Part, error)
	CompleteUpload(ctx context.Context, bucket Bucket, key, upload string, parts []CompletePart, o PutOptions) (ObjectInfo, error)
	AbortUpload(ctx context.Context, bucket Bucket, key, upload string) error
	// Parts lists the parts of an upload above a number, max at the most.
	Parts(ctx context.Context, bucket Bucket, key, upload string, after, max int) (Upload, []Part, bool, error)
	// Uploads lists uploads in order of key and id.
	Uploads(ctx context.Context, bucket Bucket, prefix, afterKey, afterID string, max int) ([]Upload, bool, error)
}

// FirstDeleter is an optional ability of [Objects]: to be told that a removal is
// the first attempt under its request id, so that nobody looks for the answer of
// an earlier one. [Objects.Delete] then is for the attempts after it.
type FirstDeleter interface {
	DeleteFirst(ctx context.Context, bucket Bucket, key string, c Conditions, r RequestID) error
}
