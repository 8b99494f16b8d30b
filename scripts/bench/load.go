package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// side is one of the two that are compared.
type side struct {
	name      string
	endpoints []string
	bucket    string
	client    *http.Client
	next      atomic.Int64
}

func newSide(name, bucket string, endpoints ...string) *side {
	const conns = 128
	return &side{name: name, bucket: bucket, endpoints: endpoints, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: conns, MaxConnsPerHost: conns, DisableCompression: true},
	}}
}

// do sends one signed request and reads the answer to its end.
func (s *side) do(ctx context.Context, method, key string, body []byte) (int64, error) {
	resp, err := s.send(ctx, method, key, body)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.Copy(io.Discard, resp.Body)
}

// send sends one signed request; an answer that is not of success is an error.
func (s *side) send(ctx context.Context, method, key string, body []byte) (*http.Response, error) {
	var rd io.Reader
	if body != nil {
		rd = bytes.NewReader(body)
	}
	r, err := s.request(ctx, method, key, rd, int64(len(body)))
	if err != nil {
		return nil, err
	}
	return s.answer(r)
}

// request makes a signed request, to the next endpoint.
func (s *side) request(ctx context.Context, method, key string, body io.Reader, size int64) (*http.Request, error) {
	endpoint := s.endpoints[int(s.next.Add(1))%len(s.endpoints)]
	r, err := http.NewRequestWithContext(ctx, method, endpoint+"/"+s.bucket+"/"+key, body)
	if err != nil {
		return nil, err
	}
	r.ContentLength = size
	creds := sigv4.Credentials{AccessKey: config.DevAccessKey, Secret: config.DevSecretKey}
	return r, sigv4.Sign(r, creds, "us-east-1", "s3", "UNSIGNED-PAYLOAD", time.Now())
}

// answer sends a request; an answer that is not of success is an error.
func (s *side) answer(r *http.Request) (*http.Response, error) {
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s of %s: %s: %s", r.Method+" "+r.URL.String(), s.name, resp.Status, why)
	}
	return resp, nil
}

// cell is one kind of load.
type cell struct {
	method  string
	size    int
	clients int
}

func (c cell) String() string {
	return fmt.Sprintf("%s %s x %d", c.method, sizeName(c.size), c.clients)
}

func sizeName(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// keysOf is how many keys a cell uses.
func (c cell) keys() int {
	return max(c.clients*2, min(2000, (256<<20)/max(c.size, 1)))
}

// prepare writes what a cell of GETs reads.
func (s *side) prepare(ctx context.Context, c cell) error {
	body := payload(c.size)
	for k := range min(c.keys(), 64) {
		if _, err := s.do(ctx, http.MethodPut, fmt.Sprintf("get-%d-%d", c.size, k), body); err != nil {
			return err
		}
	}
	return nil
}

func payload(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// turn runs a cell for a while and returns operations per second.
func (s *side) turn(ctx context.Context, c cell, d time.Duration) (float64, error) {
	body := payload(c.size)
	ctx, cancel := context.WithTimeout(ctx, d+2*time.Minute)
	defer cancel()
	began := time.Now()
	end := began.Add(d)
	var count, failed atomic.Int64
	var first error
	var once sync.Once
	var wg sync.WaitGroup
	for w := range c.clients {
		wg.Go(func() {
			client := s.worker()
			defer client.close()
			for i := 0; time.Now().Before(end) || i == 0; i++ {
				var err error
				if c.method == http.MethodPut {
					err = client.do(ctx, c.method, fmt.Sprintf("put-%d-%d", c.size, (w+i*c.clients)%c.keys()), body)
				} else {
					err = client.do(ctx, c.method, fmt.Sprintf("get-%d-%d", c.size, (w*7+i)%min(c.keys(), 64)), nil)
				}
				if err != nil {
					failed.Add(1)
					once.Do(func() { first = err })
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	if failed.Load() > 0 {
		return 0, fmt.Errorf("%s, %v: %w", s.name, c, first)
	}
	return float64(count.Load()) / time.Since(began).Seconds(), nil
}

// compare runs a cell on both sides in turns and returns the median rates and
// the median of the rounds' ratios.
func compare(ctx context.Context, base, ours *side, c cell, rounds int, d time.Duration) (b, o, ratio float64, err error) {
	if c.method == http.MethodGet {
		for _, s := range []*side{base, ours} {
			if err := s.prepare(ctx, c); err != nil {
				return 0, 0, 0, err
			}
		}
	}
	var bs, os, rs []float64
	for i := range rounds {
		sides := []*side{base, ours}
		if i%2 == 1 {
			slices.Reverse(sides)
		}
		var got [2]float64
		for _, s := range sides {
			rate, err := s.turn(ctx, c, d)
			if err != nil {
				return 0, 0, 0, err
			}
			if s == base {
				got[0] = rate
			} else {
				got[1] = rate
			}
		}
		bs, os, rs = append(bs, got[0]), append(os, got[1]), append(rs, got[1]/got[0])
	}
	return median(bs), median(os), median(rs), nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}
