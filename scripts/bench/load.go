package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

// side is one of the two that are compared.
type side struct {
	name      string
	endpoints []string
	bucket    string
	dirs      []string // where its files are
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
	// cold says that nothing of what is read is in the page cache.
	cold bool
}

func (c cell) String() string {
	s := fmt.Sprintf("%s %s x %d", c.method, sizeName(c.size), c.clients)
	if c.cold {
		s += " cold"
	}
	return s
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

// prepare writes what a cell of GETs reads, and reads it once: the baseline's files are
// in the page cache as they are written, Shoal's large shards are written past it.
func (s *side) prepare(ctx context.Context, c cell) error {
	body := payload(c.size)
	for _, method := range []string{http.MethodPut, http.MethodGet} {
		for k := range c.gets() {
			if _, err := s.do(ctx, method, getKey(c, k), body); err != nil {
				return err
			}
		}
		body = nil
	}
	return nil
}

// gets is how many keys a cell of GETs reads.
func (c cell) gets() int { return min(c.keys(), 64) }

func getKey(c cell, k int) string { return fmt.Sprintf("get-%d-%d", c.size, k) }

// forget takes all files of a side out of the page cache; they are synced.
func (s *side) forget() error {
	for _, dir := range s.dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // files come and go
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			f, err := os.Open(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			return errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
		})
		if err != nil {
			return fmt.Errorf("take the files of %s out of the page cache: %w", s.name, err)
		}
	}
	return nil
}

// coldTurn reads each key once with nothing in the page cache, again and again for a
// while, and returns operations per second.
func (s *side) coldTurn(ctx context.Context, c cell, d time.Duration) (float64, error) {
	var took time.Duration
	count := 0
	for took < d {
		if err := s.forget(); err != nil {
			return 0, err
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(c.clients)
		began := time.Now()
		for k := range c.gets() {
			group.Go(func() error {
				_, err := s.do(ctx, c.method, getKey(c, k), nil)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return 0, fmt.Errorf("%s, %v: %w", s.name, c, err)
		}
		took += time.Since(began)
		count += c.gets()
	}
	return float64(count) / took.Seconds(), nil
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
	if c.cold {
		return s.coldTurn(ctx, c, d)
	}
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
					err = client.do(ctx, c.method, getKey(c, (w*7+i)%c.gets()), nil)
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
