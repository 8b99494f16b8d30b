package main

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// listing lists many keys through the own API and through S3.
func (b *bench) listing(ctx context.Context) error {
	b.line("## Listing\n")
	return b.withCluster(ctx, 5, 3, func(c *cluster, _ string) error {
		if _, err := c.run(ctx, "bucket", "create", "shoal://many", "--props", "scheme=mirror-2"); err != nil {
			return err
		}
		s := newSide("shoal", "many", c.endpoints...)
		if err := fill(ctx, s, b.o.list, []byte("x")); err != nil {
			return err
		}
		var rates []float64
		for range b.o.rounds {
			began := time.Now()
			out, err := c.run(ctx, "ls", "shoal://many", "--no-headers")
			if err != nil {
				return err
			}
			if n := strings.Count(string(out), "\n"); n != b.o.list {
				return fmt.Errorf("listed %d of %d keys", n, b.o.list)
			}
			rates = append(rates, float64(b.o.list)/time.Since(began).Seconds())
		}
		b.line("%d keys on five nodes through the own API (`shoal ls --no-headers`, start of the command included): %.0f keys/s (target >= 100000).\n", b.o.list, median(rates))
		rates = nil
		for range b.o.rounds {
			began := time.Now()
			if err := listS3(ctx, s, b.o.list); err != nil {
				return err
			}
			rates = append(rates, float64(b.o.list)/time.Since(began).Seconds())
		}
		b.line("The same through S3, ListObjectsV2 in pages of 1,000, one after the other: %.0f keys/s.\n", median(rates))
		return nil
	})
}

// listS3 lists a bucket page by page.
func listS3(ctx context.Context, s *side, want int) error {
	token, n := "", 0
	for {
		q := url.Values{"list-type": {"2"}, "max-keys": {"1000"}}
		if token != "" {
			q.Set("continuation-token", token)
		}
		resp, err := s.send(ctx, http.MethodGet, "?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		var page struct {
			IsTruncated           bool
			NextContinuationToken string
			Contents              []struct{ Key string }
		}
		err = xml.NewDecoder(resp.Body).Decode(&page)
		_ = resp.Body.Close()
		if err != nil {
			return fmt.Errorf("page of a listing: %w", err)
		}
		n += len(page.Contents)
		if token = page.NextContinuationToken; !page.IsTruncated {
			break
		}
	}
	if n != want {
		return fmt.Errorf("listed %d of %d keys through S3", n, want)
	}
	return nil
}

// fillTries is how often a PUT is tried again: on a busy machine a cluster that
// has just been started may refuse one.
const fillTries = 5

// fill writes n objects with that content.
func fill(ctx context.Context, s *side, n int, body []byte) error {
	keys := make(chan int)
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	for range 64 {
		wg.Go(func() {
			for k := range keys {
				_, err := s.do(ctx, http.MethodPut, keyOf(k), body)
				for range fillTries {
					if err == nil || ctx.Err() != nil {
						break
					}
					_, err = s.do(ctx, http.MethodPut, keyOf(k), body)
				}
				if err != nil {
					once.Do(func() { failed = err })
				}
			}
		})
	}
	for k := range n {
		keys <- k
	}
	close(keys)
	wg.Wait()
	return failed
}

// keyOf is the name of an object that fill writes.
func keyOf(k int) string { return fmt.Sprintf("dir-%03d/key-%07d", k%500, k) }
