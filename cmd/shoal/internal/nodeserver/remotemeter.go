package nodeserver

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalstore/shoal/core/remote"
	"github.com/shoalstore/shoal/plugins/api"
)

// remoteKind is a kind of request to a backend.
type remoteKind struct{ backend, op string }

// remoteCount counts requests to a backend since the node's start, but for those
// that are under way or wait now.
type remoteCount struct {
	requests, errors, throttled int64
	kinds                       map[string]int64 // of errors
	bytesIn, bytesOut           int64
	inFlight, waiting           int
	waited                      time.Duration
}

// countsOf are the counts of a pool of clients. That an object is not there, or
// that a condition does not hold, is an answer and no error.
func countsOf(p *remote.Pool) map[remoteKind]remoteCount {
	out := map[remoteKind]remoteCount{}
	for _, s := range p.Stats() {
		c := remoteCount{
			requests: s.Requests, throttled: s.Throttled, bytesIn: s.BytesIn, bytesOut: s.BytesOut,
			inFlight: s.InFlight, waiting: s.Waiting, waited: s.Waited, kinds: map[string]int64{},
		}
		for kind, n := range s.Errors {
			if kind != "not_found" && kind != "precondition" {
				c.errors += n
				c.kinds[string(kind)] = n
			}
		}
		out[remoteKind{s.Backend, string(s.Op)}] = c
	}
	return out
}

// remoteMeter turns counts into rates. Its owner's mutex guards it.
type remoteMeter struct {
	counts func() map[remoteKind]remoteCount // nil where there are no remotes
	past   []map[remoteKind]remoteCount      // of the last seconds, oldest first
}

// turn takes the counts of a second that has ended.
func (m *remoteMeter) turn() {
	if m.counts == nil {
		return
	}
	m.past = append(m.past, m.counts())
	if k := len(m.past) - int(window/time.Second) - 1; k > 0 {
		m.past = slices.Delete(m.past, 0, k)
	}
}

// performance is what was done in the window. Kinds that were idle are left out.
func (m *remoteMeter) performance() []api.RemotePerformance {
	if len(m.past) == 0 {
		return nil
	}
	first, last := m.past[0], m.past[len(m.past)-1]
	seconds := window.Seconds()
	var out []api.RemotePerformance
	for kind, c := range last {
		was := first[kind]
		p := api.RemotePerformance{
			Backend: kind.backend, Op: kind.op, Count: c.requests - was.requests, Errors: c.errors - was.errors, Throttled: c.throttled - was.throttled,
			BytesIn: float64(c.bytesIn-was.bytesIn) / seconds, BytesOut: float64(c.bytesOut-was.bytesOut) / seconds,
			InFlight: c.inFlight, Waiting: c.waiting,
		}
		p.Rate = float64(p.Count) / seconds
		if p.Count > 0 || p.BytesIn > 0 || p.BytesOut > 0 || p.InFlight > 0 || p.Waiting > 0 {
			out = append(out, p)
		}
	}
	sortRemotes(out)
	return out
}

func sortRemotes(list []api.RemotePerformance) {
	slices.SortFunc(list, func(a, b api.RemotePerformance) int {
		return cmp.Or(cmp.Compare(a.Backend, b.Backend), cmp.Compare(a.Op, b.Op))
	})
}

// totalRemotes adds the nodes up.
func totalRemotes(nodes []api.NodePerformance) []api.RemotePerformance {
	sums := map[remoteKind]*api.RemotePerformance{}
	for i := range nodes {
		for _, r := range nodes[i].Remotes {
			kind := remoteKind{r.Backend, r.Op}
			t := sums[kind]
			if t == nil {
				t = &api.RemotePerformance{Backend: r.Backend, Op: r.Op}
				sums[kind] = t
			}
			t.Count += r.Count
			t.Errors += r.Errors
			t.Throttled += r.Throttled
			t.Rate += r.Rate
			t.BytesIn += r.BytesIn
			t.BytesOut += r.BytesOut
			t.InFlight += r.InFlight
			t.Waiting += r.Waiting
		}
	}
	var out []api.RemotePerformance
	for _, t := range sums {
		out = append(out, *t)
	}
	sortRemotes(out)
	return out
}

// collectRemotes tells Prometheus what was asked of remotes.
func (c *nodeCollector) collectRemotes(ch chan<- prometheus.Metric) {
	counts := c.s.meter.remotes.counts
	if counts == nil {
		return
	}
	for kind, n := range counts() {
		metric := func(t prometheus.ValueType, name, help string, v float64) {
			ch <- prometheus.MustNewConstMetric(desc(name, help, "backend", "op"), t, v, kind.backend, kind.op)
		}
		metric(prometheus.CounterValue, "remote_requests_total", "Requests to the remotes of buckets, repetitions included.", float64(n.requests))
		for why, failed := range n.kinds {
			ch <- prometheus.MustNewConstMetric(desc("remote_errors_total", "Requests to remotes that failed, but for what was not there and conditions that did not hold.", "backend", "op", "kind"),
				prometheus.CounterValue, float64(failed), kind.backend, kind.op, why)
		}
		metric(prometheus.CounterValue, "remote_wait_seconds_total", "Time that calls waited for their turn, and between a request and its repetition.", n.waited.Seconds())
		metric(prometheus.CounterValue, "remote_throttled_total", "Requests that a remote answered by asking for fewer.", float64(n.throttled))
		metric(prometheus.CounterValue, "remote_received_bytes_total", "Bytes of objects from remotes.", float64(n.bytesIn))
		metric(prometheus.CounterValue, "remote_sent_bytes_total", "Bytes of objects to remotes.", float64(n.bytesOut))
		metric(prometheus.GaugeValue, "remote_requests_in_flight", "Requests to remotes under way.", float64(n.inFlight))
		metric(prometheus.GaugeValue, "remote_requests_waiting", "Requests to remotes that wait for their turn.", float64(n.waiting))
	}
}
