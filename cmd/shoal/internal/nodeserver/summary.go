package nodeserver

import (
	"context"
	"errors"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	apiserver "github.com/shoalstore/shoal/plugins/api/server"
)

const (
	// fewPages is how many requests a summary takes that was not asked to count
	// all.
	fewPages = 10
	// tellEvery is the time between two lines of a summary under way.
	tellEvery = 2 * time.Second
)

// Summary is part of apiserver.BucketService.
func (b bucketService) Summary(ctx context.Context, name core.BucketName, o apiserver.SummaryOptions, tell func(api.SummaryPart)) (api.Summary, error) {
	c := counting{b: b, o: o, tell: tell, last: b.s.clock.Boot(), sum: api.Summary{Bucket: name.String(), Accessible: true}}
	x, err := b.use(ctx, name)
	if refused := refusalOf(err); refused != nil && name.Remote() {
		c.sum.Accessible, c.sum.Reason = false, refused
		return c.sum, nil
	}
	if err != nil {
		return c.sum, err
	}
	if o.After == "" {
		if err := c.present(ctx, x); err != nil {
			return c.sum, err
		}
	}
	if !name.Remote() || o.Presence == api.Cached {
		return c.sum, nil
	}
	err = c.remote(ctx, x)
	if refused := refusalOf(remoteOutcome(name, err)); refused != nil {
		c.sum.Accessible, c.sum.Reason, c.sum.Remote = false, refused, nil
		return c.sum, nil
	}
	return c.sum, err
}

// refusalOf is why a remote bucket is not accessible; nil if err says something
// else.
func refusalOf(err error) *api.Error {
	e, ok := errors.AsType[*api.Error](err)
	if !ok {
		return nil
	}
	switch e.Code {
	case api.CodeNoSuchBucket, api.CodeForbidden, api.CodeWrongRegion, api.CodeThrottled, api.CodeRemote:
		return e
	}
	return nil
}

// remoteOutcome is remoteError where there is an error.
func remoteOutcome(name core.BucketName, err error) error {
	if err == nil {
		return nil
	}
	return remoteError(name, err)
}

// counting is a summary under way.
type counting struct {
	b    bucketService
	o    apiserver.SummaryOptions
	tell func(api.SummaryPart)
	last core.Instant // when tell was called
	sum  api.Summary
}

// present counts what the cluster has.
func (c *counting) present(ctx context.Context, x core.Bucket) (err error) {
	n := 0
	c.b.s.node.ListAll(ctx, x, "", "", false, func(_ string, rec *core.Record, e error) bool {
		if e != nil {
			err = e
			return false
		}
		c.sum.Present.Objects++
		c.sum.Present.Bytes += rec.StoredBytes()
		if n++; n%10_000 == 0 {
			c.report("")
		}
		return true
	})
	return err
}

// remote counts what the remote has, unless that takes too many requests.
func (c *counting) remote(ctx context.Context, x core.Bucket) error {
	k, err := c.b.s.backend(x.Name, x.Remote)
	if err != nil {
		return err
	}
	if k.Abilities().NoList {
		return k.HeadBucket(ctx, remoteName(x.Name, x.Remote))
	}
	var sum api.Amount
	after := c.o.After
	for pages := 0; ; pages++ {
		if pages == fewPages && !c.o.All {
			return nil
		}
		page, err := listRemote(ctx, k, x, core.RemoteListOptions{After: after})
		if err != nil {
			return err
		}
		for i := range page.Objects {
			sum = sum.Add(api.Amount{Objects: 1, Bytes: page.Objects[i].Size})
		}
		if !page.More {
			c.sum.Remote = &sum
			return nil
		}
		after = page.Next
		if c.o.All {
			so := sum
			c.sum.Remote = &so
			c.report(after)
		}
	}
}

// report says now and then how far the counting is.
func (c *counting) report(after string) {
	now := c.b.s.clock.Boot()
	if now.Sub(c.last) < tellEvery {
		return
	}
	c.last = now
	c.tell(api.SummaryPart{Summary: c.sum, After: after})
}
