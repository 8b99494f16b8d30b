package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// sample is how far a job was at a moment.
type sample struct {
	at    time.Time
	bytes int64
}

// course is how a job went, in order of time. Bytes never fall: what a job
// counts again after the loss of a cursor was done before.
type course []sample

func (c course) add(at time.Time, bytes int64) course {
	if n := len(c); n > 0 {
		bytes = max(bytes, c[n-1].bytes)
	}
	return append(c, sample{at, bytes})
}

// at is how much was done at a moment, between samples in proportion.
func (c course) at(t time.Time) float64 {
	for i, s := range c {
		switch {
		case s.at.Before(t):
			continue
		case i == 0:
			return float64(s.bytes)
		}
		p := c[i-1]
		part := float64(t.Sub(p.at)) / float64(s.at.Sub(p.at))
		return float64(p.bytes) + part*float64(s.bytes-p.bytes)
	}
	return float64(c[len(c)-1].bytes)
}

// rate is the mean between two moments, in bytes per second.
func (c course) rate(from, to time.Time) float64 {
	if d := to.Sub(from).Seconds(); d > 0 {
		return (c.at(to) - c.at(from)) / d
	}
	return 0
}

const (
	// dipWindow is the time over which throughput is taken to find a dip.
	dipWindow = time.Second
	// dipBelow is the part of the throughput before below which it is a dip.
	dipBelow = 0.7
)

// measure compares the throughput before a strike with that after it.
func (c course) measure(struck time.Time) measured {
	var m measured
	if len(c) < 2 {
		return m
	}
	first, end := c[0].at, c[len(c)-1].at
	m.Before = c.rate(first, struck)
	if struck.Sub(first) < dipWindow || m.Before == 0 {
		m.Before = c.rate(first, end) // too early to tell
	}
	lowest, over := m.Before, struck
	for t := struck; !t.Add(dipWindow).After(end); t = t.Add(dipWindow / 10) {
		r := c.rate(t, t.Add(dipWindow))
		lowest = min(lowest, r)
		if r < dipBelow*m.Before {
			m.Seconds += (dipWindow / 10).Seconds()
			over = t.Add(dipWindow)
		}
	}
	if m.Before > 0 {
		m.Depth = 1 - lowest/m.Before
	}
	if over.Equal(struck) {
		over = earlier(struck.Add(dipWindow), end)
	}
	m.During = c.rate(struck, over)
	if m.After = c.rate(over, end); end.Sub(over) < dipWindow {
		m.After = c.rate(struck, end)
	}
	return m
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (m measured) String() string {
	return fmt.Sprintf("%s/s before the strike, %s/s during, %s/s after; dip of %.0f %% for %.1f s",
		bytesText(m.Before), bytesText(m.During), bytesText(m.After), 100*m.Depth, m.Seconds)
}

// watched is a job that runs.
type watched struct {
	done chan struct{} // closed when job and err are final

	mu     sync.Mutex
	course course
	job    api.Job
	err    error
}

// watch follows a job to its end or that of ctx.
func watch(ctx context.Context, c *client.Client, j api.Job) *watched {
	w := &watched{done: make(chan struct{}), job: j}
	w.course = w.course.add(time.Now(), 0)
	go func() {
		defer close(w.done)
		job, err := c.WatchJob(ctx, j.ID, 100*time.Millisecond, func(j api.Job) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.job, w.course = j, w.course.add(time.Now(), j.Done.Bytes)
		})
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.err = err; err == nil {
			w.job = job
		}
	}()
	return w
}

// last is what is known of the job.
func (w *watched) last() api.Job {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.job
}

// result returns what came of the job once it has ended.
func (w *watched) result() (api.Job, course, error) {
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.job, w.course, w.err
}
