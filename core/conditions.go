package core

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Limits of S3 that object layers hold (AWS, "Amazon S3 multipart upload
// limits").
const (
	// MinPart is the smallest size in bytes of a part that is not the last.
	MinPart = 5 << 20
	// MaxParts is the largest part number and the largest number of parts.
	MaxParts = 10000
)

// Resolve returns which bytes of an object of size bytes the range asks for.
// A range that selects none of them is ErrRange; one that reaches beyond the
// end is cut short.
func (r ByteRange) Resolve(size int64) (start, length int64, err error) {
	start, end := r.Start, r.End
	if start < 0 {
		start, end = max(size-r.End, 0), size-1
		if r.End <= 0 {
			start = size
		}
	}
	if end < 0 {
		end = math.MaxInt64
	}
	end = min(end, size-1)
	if start >= size || end < start {
		return 0, 0, fmt.Errorf("bytes %d to %d of %d: %w", r.Start, r.End, size, ErrRange)
	}
	return start, end - start + 1, nil
}

// IsZero says whether there are no conditions.
func (c *Conditions) IsZero() bool {
	return len(c.IfMatch) == 0 && len(c.IfNoneMatch) == 0 && c.IfModifiedSince.IsZero() && c.IfUnmodifiedSince.IsZero()
}

// CheckRead evaluates the conditions of a read of an object that exists, in
// the order of RFC 9110, section 13.2.2: an ETag condition overrides the date
// condition of its kind. It returns nil, ErrPrecondition or ErrNotModified.
// Dates have a resolution of one second.
func (c *Conditions) CheckRead(etag string, modified time.Time) error {
	modified = modified.Truncate(time.Second)
	switch {
	case len(c.IfMatch) > 0:
		if !matches(c.IfMatch, etag) {
			return fmt.Errorf("if-match: the ETag is %q: %w", etag, ErrPrecondition)
		}
	case !c.IfUnmodifiedSince.IsZero() && modified.After(c.IfUnmodifiedSince):
		return fmt.Errorf("if-unmodified-since: modified at %s: %w", modified.UTC().Format(time.RFC3339), ErrPrecondition)
	}
	switch {
	case len(c.IfNoneMatch) > 0:
		if matches(c.IfNoneMatch, etag) {
			return fmt.Errorf("if-none-match: the ETag is %q: %w", etag, ErrNotModified)
		}
	case !c.IfModifiedSince.IsZero() && !modified.After(c.IfModifiedSince):
		return fmt.Errorf("if-modified-since: modified at %s: %w", modified.UTC().Format(time.RFC3339), ErrNotModified)
	}
	return nil
}

// CheckWrite evaluates the conditions of a write or removal of a key; present
// is what the key holds, nil for nothing. If-Match on a key that holds nothing
// is ErrNotFound, as in S3; every other condition that fails ErrPrecondition.
func (c *Conditions) CheckWrite(present *Record) error {
	if present == nil {
		if len(c.IfMatch) > 0 {
			return fmt.Errorf("if-match: there is no object: %w", ErrNotFound)
		}
		return nil
	}
	if len(c.IfMatch) > 0 && !matches(c.IfMatch, present.ETag) {
		return fmt.Errorf("if-match: the ETag is %q: %w", present.ETag, ErrPrecondition)
	}
	if len(c.IfNoneMatch) > 0 && matches(c.IfNoneMatch, present.ETag) {
		return fmt.Errorf("if-none-match: the ETag is %q: %w", present.ETag, ErrPrecondition)
	}
	modified := present.Modified.Truncate(time.Second)
	if !c.IfUnmodifiedSince.IsZero() && modified.After(c.IfUnmodifiedSince) ||
		!c.IfModifiedSince.IsZero() && !modified.After(c.IfModifiedSince) {
		return fmt.Errorf("the object was modified at %s: %w", modified.UTC().Format(time.RFC3339), ErrPrecondition)
	}
	return nil
}

// CheckCopySource evaluates the conditions of the source of a copy: those of a
// read, but every one that fails is ErrPrecondition (AWS, CopyObject).
func (c *Conditions) CheckCopySource(etag string, modified time.Time) error {
	if err := c.CheckRead(etag, modified); err != nil {
		return fmt.Errorf("copy source: %s: %w", err.Error(), ErrPrecondition)
	}
	return nil
}

func matches(list []string, etag string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, etag)
}
