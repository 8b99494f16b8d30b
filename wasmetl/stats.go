package wasmetl

import (
	"maps"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
)

const (
	keptErrors = 100
	keptLog    = 1 << 10 // bytes of the log of each
)

// Stats count what a version of a transform did on this node.
type Stats struct {
	Calls, Done, Dropped, Failed int64
	// Errors counts calls that ended otherwise: a source, an output, a client.
	Errors   int64
	Failures map[string]int64 // by class
	BytesIn  int64
	BytesOut int64
	Outputs  int64
	Reused   int64 // calls that found an instance in the pool
	// Wall and CPU are quantiles of the time of a call, to a factor of two.
	WallP50, WallP99, CPUP50, CPUP99 time.Duration
	WallSum, CPUSum, QueuedSum       time.Duration
	PeakMemory                       int64
	// Recent are the last failures, the newest last.
	Recent []FailedObject
}

// FailedObject is an object that a transform failed on.
type FailedObject struct {
	Time        time.Time
	Bucket, Key string
	Failure     core.TransformFailure
	Log         string // its end
}

type stats struct {
	mu        sync.Mutex
	s         Stats
	wall, cpu histogram
}

func (s *stats) add(now time.Time, o core.TransformObject, r core.TransformResult, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Calls++
	switch {
	case err != nil:
		s.s.Errors++
	case r.Outcome == core.TransformDone:
		s.s.Done++
	case r.Outcome == core.TransformDropped:
		s.s.Dropped++
	default:
		s.failed(now, o, r)
	}
	if r.Reused {
		s.s.Reused++
	}
	s.s.BytesIn += r.BytesIn
	s.s.BytesOut += r.BytesOut
	s.s.Outputs += int64(r.Outputs)
	s.s.WallSum += r.Wall
	s.s.CPUSum += r.CPU
	s.s.QueuedSum += r.Queued
	s.s.PeakMemory = max(s.s.PeakMemory, r.Memory)
	s.wall.add(r.Wall)
	s.cpu.add(r.CPU)
}

func (s *stats) failed(now time.Time, o core.TransformObject, r core.TransformResult) {
	s.s.Failed++
	if s.s.Failures == nil {
		s.s.Failures = map[string]int64{}
	}
	s.s.Failures[r.Failure.Class]++
	if len(s.s.Recent) == keptErrors {
		s.s.Recent = slices.Delete(s.s.Recent, 0, 1)
	}
	s.s.Recent = append(s.s.Recent, FailedObject{
		Time: now, Bucket: o.Bucket, Key: o.Key, Failure: *r.Failure, Log: r.Log[max(0, len(r.Log)-keptLog):],
	})
}

func (s *stats) snapshot() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.s
	out.Failures = make(map[string]int64, len(s.s.Failures))
	maps.Copy(out.Failures, s.s.Failures)
	out.Recent = slices.Clone(s.s.Recent)
	out.WallP50, out.WallP99 = s.wall.quantile(50), s.wall.quantile(99)
	out.CPUP50, out.CPUP99 = s.cpu.quantile(50), s.cpu.quantile(99)
	return out
}

// histogram counts times by their power of two in nanoseconds.
type histogram struct {
	n       int64
	buckets [65]int64
}

func (h *histogram) add(d time.Duration) {
	h.n++
	h.buckets[bits.Len64(uint64(max(0, d)))]++
}

// quantile is the upper end of the bucket in which a percentile is.
func (h *histogram) quantile(percent int64) time.Duration {
	rank := (h.n*percent + 99) / 100
	for i, n := range h.buckets {
		if rank -= n; rank <= 0 && n > 0 {
			return time.Duration(1)<<i - 1
		}
	}
	return 0
}
