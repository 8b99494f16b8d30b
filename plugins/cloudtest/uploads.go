package cloudtest

import (
	"maps"
	"net/http"
	"sync"
)

// Upload is what was asked of the server about an object in requests that write
// it whole: PutObject, CompleteUpload and Copy.
type Upload struct {
	// Sent were passed on to the server, of which Active have no answer yet.
	Sent, Active int
	// Written took effect, by the server's answer; Refused met a precondition that
	// did not hold.
	Written, Refused int
}

// uploads are those that passed, by bucket and key.
type uploads struct {
	mu      sync.Mutex
	buckets map[string]map[string]Upload
}

// begin notes a request and returns what notes its end.
func (u *uploads) begin(q request) func(*http.Response, error) {
	switch q.op {
	case PutObject, CompleteUpload, Copy:
	default:
		return func(*http.Response, error) {}
	}
	change := func(f func(*Upload)) {
		u.mu.Lock()
		defer u.mu.Unlock()
		b := u.buckets[q.bucket]
		if b == nil {
			b = map[string]Upload{}
			u.buckets[q.bucket] = b
		}
		x := b[q.key]
		f(&x)
		b[q.key] = x
	}
	change(func(x *Upload) { x.Sent++; x.Active++ })
	return func(res *http.Response, err error) {
		change(func(x *Upload) {
			x.Active--
			switch {
			case err != nil:
			case res.StatusCode < http.StatusMultipleChoices:
				x.Written++
			case res.StatusCode == http.StatusPreconditionFailed:
				x.Refused++
			}
		})
	}
}

// Uploads are those to a bucket since the proxy was started, by key, if
// [ProxyOptions.Uploads] has them kept.
func (p *Proxy) Uploads(bucket string) map[string]Upload {
	if p.uploads == nil {
		return nil
	}
	p.uploads.mu.Lock()
	defer p.uploads.mu.Unlock()
	return maps.Clone(p.uploads.buckets[bucket])
}
