package s3gateway

import (
	"context"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"github.com/shoalstore/shoal/core"
)

// set sets a header of the response. Names are written as AWS writes them;
// the map is filled past net/http's spelling on purpose.
func (q *request) set(name, value string) {
	if q.used == len(q.values) {
		q.w.Header()[name] = []string{value}
		return
	}
	q.values[q.used] = value
	q.w.Header()[name] = q.values[q.used : q.used+1 : q.used+1]
	q.used++
}

// requestID is the request's id in hex.
func (q *request) requestID() string {
	hex.Encode(q.idHex[:], q.id[:])
	return string(q.idHex[:])
}

// status sends an answer without a body.
func (q *request) status(code int) error {
	if code != http.StatusNoContent && code != http.StatusNotModified {
		q.set("Content-Length", "0")
	}
	q.w.WriteHeader(code)
	return nil
}

// writeXML sends a document.
func (q *request) writeXML(code int, doc []byte) error {
	q.set("Content-Type", "application/xml")
	q.set("Content-Length", strconv.Itoa(len(doc)))
	q.w.WriteHeader(code)
	if q.r.Method != http.MethodHead {
		// A client that is gone needs no more.
		_, _ = q.w.Write(doc)
	}
	return nil
}

// keepAlive is how often a slow answer sends a space, so that clients and
// proxies do not give up.
const keepAlive = 10 * time.Second

// slowly answers with the document that f makes. If that takes long the
// answer begins with status 200 and white space, and an error comes in its
// body (AWS, CopyObject: "an error can occur after the 200 OK"); SDKs know.
func (q *request) slowly(ctx context.Context, f func(ctx context.Context) ([]byte, error)) error {
	waiting, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	var doc []byte
	var err error
	go func() {
		defer close(done)
		defer stop()
		doc, err = f(ctx)
	}()
	begun := false
	for q.clock.Wait(waiting, keepAlive) == nil {
		if !begun {
			begun = true
			q.set("Content-Type", "application/xml")
			q.w.WriteHeader(http.StatusOK)
			_, _ = q.w.Write([]byte(xmlHeader))
		}
		_, _ = q.w.Write([]byte(" "))
		_ = http.NewResponseController(q.w).Flush()
	}
	<-done
	switch {
	case !begun && err != nil:
		return err
	case !begun:
		return q.writeXML(http.StatusOK, doc)
	case err != nil:
		doc = q.errorDocument(q.describe(err))
	}
	_, _ = q.w.Write(doc[len(xmlHeader):])
	return nil
}

// describeObject sets the headers that GET and HEAD share. They are built in
// one piece of memory.
func (q *request) describeObject(info *core.ObjectInfo, length int64) {
	var room [128]byte
	b := append(room[:0], '"')
	b = append(append(b, info.ETag...), '"')
	etag := len(b)
	b = info.Modified.UTC().AppendFormat(b, http.TimeFormat)
	modified := len(b)
	b = strconv.AppendInt(b, length, 10)
	s := string(b)
	q.set("ETag", s[:etag])
	q.set("Last-Modified", s[etag:modified])
	q.set("Content-Length", s[modified:])
	q.set("Accept-Ranges", "bytes")
	if _, ok := info.Headers["Content-Type"]; !ok {
		q.set("Content-Type", defaultType)
	}
	for name, value := range info.Headers {
		q.set(name, value)
	}
	for name, value := range info.Meta {
		q.set("x-amz-meta-"+name, value)
	}
	if n := len(info.Tags); n > 0 {
		q.set("x-amz-tagging-count", strconv.Itoa(n))
	}
	for _, p := range q.query {
		if name := overrides(p.Name); name != "" {
			q.set(name, p.Value)
		}
	}
}

// defaultType is the type of an object that was stored without one.
const defaultType = "binary/octet-stream"

// overrides is the header that a response- parameter replaces.
func overrides(param string) string {
	switch param {
	case "response-cache-control":
		return "Cache-Control"
	case "response-content-disposition":
		return "Content-Disposition"
	case "response-content-encoding":
		return "Content-Encoding"
	case "response-content-language":
		return "Content-Language"
	case "response-content-type":
		return "Content-Type"
	case "response-expires":
		return "Expires"
	}
	return ""
}
