package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// SummaryOptions say what to count.
type SummaryOptions struct {
	// Presence api.Cached leaves the remote alone.
	Presence api.Presence
	// All counts what the remote has, whatever that costs; otherwise it is
	// counted where that costs a few requests.
	All bool
}

// Summary counts what is in a bucket. When a node dies it goes on with another
// from where the counting was.
func (c *Client) Summary(ctx context.Context, b core.BucketName, o SummaryOptions) (api.Summary, error) {
	s := summary{c: c, bucket: b, o: o}
	since := c.o.Clock.Boot()
	delay := newBackOff()
	what := "count " + b.String()
	for {
		after := s.known.After
		err := s.stream(ctx)
		var own *api.Error
		switch {
		case err == nil:
			return s.sum, nil
		case ctx.Err() != nil:
			return s.sum, interrupted(ctx, what, err)
		case errors.As(err, &own) && own.Code != api.CodeUnavailable, errors.Is(err, core.ErrUnavailable):
			return s.sum, err
		case s.known.After != after:
			since = c.o.Clock.Boot()
			delay.Reset()
		}
		if silent := c.o.Clock.Boot().Sub(since); silent > c.o.RetryFor {
			return s.sum, gaveUp(what, silent, err)
		}
		c.o.Log.Debug("counting broke off, going on", "bucket", b.String(), "after", s.known.After, "err", err)
		if c.o.Clock.Wait(ctx, delay.NextBackOff()) != nil {
			return s.sum, interrupted(ctx, what, err)
		}
	}
}

// summary is a counting under way.
type summary struct {
	c      *Client
	bucket core.BucketName
	o      SummaryOptions
	known  api.SummaryPart // as of the last line from which it can go on
	sum    api.Summary     // the result
}

// stream reads one answer.
func (s *summary) stream(ctx context.Context) error {
	q := url.Values{"progress": {"true"}}
	if s.o.Presence != "" {
		q.Set("presence", string(s.o.Presence))
	}
	if s.o.All {
		q.Set("all", "true")
	}
	from := s.known
	if from.After != "" {
		q.Set("after", from.After)
	}
	resp, _, err := s.c.do(ctx, &request{method: http.MethodGet, path: api.SummaryPath(s.bucket), query: q, patience: time.Minute})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	for {
		var p api.SummaryPart
		if err := lines.Decode(&p); err != nil {
			return fmt.Errorf("summary: %w", err)
		}
		if p.Error != nil {
			if p.Error.Code == api.CodeUnavailable {
				return errBroken{p.Error}
			}
			return p.Error
		}
		p.Present = p.Present.Add(from.Present)
		if p.Remote != nil && from.Remote != nil {
			sum := p.Remote.Add(*from.Remote)
			p.Remote = &sum
		}
		if p.End {
			s.sum = p.Summary
			return nil
		}
		if p.After != "" {
			s.known = p
		}
	}
}
