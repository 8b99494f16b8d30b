package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/shoalstore/shoal/plugins/cloudtest"
)

// listedKeys is how many keys the listing has, in a bucket of their own.
const (
	listedKeys   = 5000
	listedBucket = "bench-list"
)

// operation is one whose cost at the cloud is counted.
type operation struct {
	name string
	run  func(ctx context.Context) error
}

// cloudRequests counts what operations cost at the cloud.
func (b *bench) cloudRequests(ctx context.Context, l *cloud) error {
	operations, err := b.operations(ctx, l)
	if err != nil {
		return err
	}
	b.line("What operations ask of the cloud (versitygw), all that follows them included:\n")
	b.line("| operation | requests | | MiB read | MiB sent |")
	b.line("| --- | ---: | --- | ---: | ---: |")
	for _, o := range operations {
		if err := l.settle(ctx); err != nil {
			return err
		}
		before := l.proxy.Counts()
		if err := o.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
		if err := l.settle(ctx); err != nil {
			return err
		}
		n := l.proxy.Counts().Sub(before)
		b.line("| %s | %d | %s | %.2f | %.2f |", o.name, n.Of().Requests, kinds(n), float64(n.Of().Out)/(1<<20), float64(n.Of().In)/(1<<20))
	}
	b.line("")
	return nil
}

// kinds tells what kinds of requests were made.
func kinds(c cloudtest.Counts) string {
	var out []string
	for _, op := range slices.Sorted(maps.Keys(c.ByOp)) {
		if n := c.ByOp[op].Requests; n > 0 {
			out = append(out, fmt.Sprintf("%d %s", n, op))
		}
	}
	return strings.Join(out, ", ")
}

// operations are what is counted, in an order in which each finds what it needs.
func (b *bench) operations(ctx context.Context, l *cloud) ([]operation, error) {
	small, medium, huge := int64(64<<10), int64(16<<20), int64(b.o.remote)<<20
	for _, s := range []struct {
		key  string
		size int64
	}{{"cost-small", small}, {"cost-medium", medium}, {"cost-head", small}, {"cost-cold", small}, {"cost-gone", small}, {"cost-huge", huge}, {"cost-range", huge}} {
		if err := l.seed(ctx, s.size, s.key); err != nil {
			return nil, err
		}
	}
	if err := l.server.CreateBucket(ctx, listedBucket); err != nil {
		return nil, err
	}
	if err := fill(ctx, newSide("the server", listedBucket, l.server.URL()), listedKeys, []byte("x")); err != nil {
		return nil, err
	}
	if _, err := l.c.run(ctx, "bucket", "create", "s3://"+listedBucket); err != nil {
		return nil, err
	}
	get := func(key string, size int64) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := l.ours.get(ctx, key, size)
			return err
		}
	}
	put := func(key string, size int64) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := l.ours.put(ctx, key, size)
			return err
		}
	}
	send := func(method, key string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := l.ours.send(ctx, method, key, "", -1)
			return err
		}
	}
	const mib = 1 << 20
	ranged := func(from, to int64) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := l.ours.send(ctx, http.MethodGet, "cost-range", fmt.Sprintf("bytes=%d-%d", from, to-1), to-from)
			return err
		}
	}
	// Sixteen at once: all readers share one fetch.
	together := func(ctx context.Context) error {
		errs := make(chan error)
		const readers = 16
		for range readers {
			go func() { errs <- get("cost-medium", medium)(ctx) }()
		}
		var err error
		for range readers {
			err = errors.Join(err, <-errs)
		}
		return err
	}
	size := sizeName(int(huge))
	middle := huge/2/(8*mib)*(8*mib) + 2*mib // within a block of 8 MiB
	return []operation{
		{"GET 64 KiB, cold", get("cost-small", small)},
		{"GET 64 KiB, warm", get("cost-small", small)},
		{"GET 16 MiB, cold, 16 readers at once", together},
		{"GET 16 MiB, warm", get("cost-medium", medium)},
		{"GET " + size + ", cold", get("cost-huge", huge)},
		{"GET " + size + ", warm", get("cost-huge", huge)},
		{"GET 1 MiB of " + size + ", cold", ranged(middle, middle+mib)},
		{"the same again, warm", ranged(middle, middle+mib)},
		{"GET 1 MiB across two blocks, cold", ranged(middle+14*mib-mib/2, middle+14*mib+mib/2)},
		{"GET the last 1 MiB, cold", ranged(huge-mib, huge)},
		{"HEAD, cold", send(http.MethodHead, "cost-head")},
		{"HEAD, warm", send(http.MethodHead, "cost-small")},
		{"PUT 64 KiB, new key", put("cost-new", small)},
		{"PUT 64 KiB, present key", put("cost-new", small)},
		{"PUT 64 KiB, key that is there and cold", put("cost-cold", small)},
		{"PUT 16 MiB", put("cost-new-medium", medium)},
		{"PUT " + size, put("cost-new-huge", huge)},
		{"DELETE, present", send(http.MethodDelete, "cost-new")},
		{"DELETE, cold", send(http.MethodDelete, "cost-gone")},
		{fmt.Sprintf("LIST %d keys", listedKeys), func(ctx context.Context) error {
			return listS3(ctx, newSide("the cluster", listedBucket, l.c.endpoints...), listedKeys)
		}},
	}, nil
}
