// Package cloudsuite lets the conformance suite of backends use the proxy of
// cloudtest. (It is apart so that programs which use cloudtest do not import
// package testing.)
package cloudsuite

import (
	"context"

	"github.com/shoalstore/shoal/core/backendtest"
	"github.com/shoalstore/shoal/plugins/cloudtest"
)

// Proxy is p as the suite sees it.
func Proxy(p *cloudtest.Proxy) backendtest.Proxy { return proxy{p} }

type proxy struct{ *cloudtest.Proxy }

// Break implements [backendtest.Proxy].
func (p proxy) Break(f backendtest.Fault) {
	kinds := map[backendtest.FaultKind]cloudtest.Fault{
		backendtest.Answer: cloudtest.Answer, backendtest.ResetBefore: cloudtest.ResetBefore, backendtest.ResetAfter: cloudtest.ResetAfter,
		backendtest.Hang: cloudtest.Hang, backendtest.Truncate: cloudtest.Truncate, backendtest.ResetBody: cloudtest.ResetBody,
		backendtest.Stall: cloudtest.Stall, backendtest.Shorten: cloudtest.Shorten, backendtest.Lie: cloudtest.NoFault,
	}
	p.SetRules(cloudtest.Rule{
		Fault: kinds[f.Kind], At: f.At, Status: f.Status, Body: f.Body, RetryAfter: f.RetryAfter, Header: f.Header,
	})
}

// Mend implements [backendtest.Proxy].
func (p proxy) Mend() { p.SetRules() }

// Requests implements [backendtest.Proxy].
func (p proxy) Requests() int { return int(p.Counts().Of().Requests) }

// AwaitActive implements [backendtest.Proxy].
func (p proxy) AwaitActive(ctx context.Context, n int) error {
	return p.Await(ctx, func(c cloudtest.Counts) bool { return c.Active == n })
}
