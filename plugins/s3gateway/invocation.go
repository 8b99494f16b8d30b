package s3gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// maxInvocation is the longest id of an invocation that is taken; SDKs send a
// UUID.
const maxInvocation = 128

// writeID is the id under which the answer to a write of an object or part is
// remembered, and whether this is the first attempt.
//
// The AWS SDKs name an invocation by Amz-Sdk-Invocation-Id and count its attempts
// in Amz-Sdk-Request. So an attempt that says of itself that it is not the first
// gets the answer of the one before, if that took place, instead of being carried
// out again. A first attempt always is: an id that a client uses again, for
// another body perhaps, does no harm. Everything that tells one request from
// another goes into the id, so that it is the same for the same write only.
func (q *request) writeID() (id core.RequestID, fresh bool) {
	invocation := first(q.r.Header, "Amz-Sdk-Invocation-Id")
	n := attempt(first(q.r.Header, "Amz-Sdk-Request"))
	if invocation == "" || len(invocation) > maxInvocation || n == 0 || q.auth.AccessKey == "" {
		return q.id, true
	}
	h := sha256.New()
	add := func(s string) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(s)))
		h.Write(size[:])
		h.Write([]byte(s))
	}
	add("shoal invocation 1")
	add(q.auth.AccessKey)
	add(invocation)
	add(q.r.Method)
	add(fmt.Sprint(q.bucket.ID))
	add(q.key)
	add(q.query.Get("uploadId"))
	add(q.query.Get("partNumber"))
	add(fmt.Sprint(q.r.ContentLength))
	for _, name := range []string{
		"X-Amz-Decoded-Content-Length", "X-Amz-Content-Sha256", "Content-Md5", "X-Amz-Checksum-Crc32", "X-Amz-Checksum-Crc32c",
		"X-Amz-Checksum-Crc64nvme", "X-Amz-Checksum-Sha1", "X-Amz-Checksum-Sha256", "If-Match", "If-None-Match",
		"X-Amz-Copy-Source", "X-Amz-Copy-Source-Range", "X-Amz-Copy-Source-If-Match", "X-Amz-Copy-Source-If-None-Match",
	} {
		add(strings.Join(q.r.Header[name], "\x00"))
	}
	copy(id[:], h.Sum(nil))
	return id, n == 1
}

// attempt reads the number out of "attempt=2; max=3"; 0 if there is none.
func attempt(header string) int {
	for field := range strings.SplitSeq(header, ";") {
		text, ok := strings.CutPrefix(strings.TrimSpace(field), "attempt=")
		if !ok || text == "" || len(text) > 4 {
			continue
		}
		n := 0
		for _, c := range []byte(text) {
			if c < '0' || c > '9' {
				return 0
			}
			n = 10*n + int(c-'0')
		}
		return n
	}
	return 0
}
