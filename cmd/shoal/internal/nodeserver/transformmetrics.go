package nodeserver

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalstore/shoal/core/etl"
)

// collectTransforms tells what this node has done with transforms, by name and
// digest: versions that differ in their settings only are added up.
func (c *nodeCollector) collectTransforms(ch chan<- prometheus.Metric) {
	type id struct{ name, digest string }
	type sum struct {
		done, dropped, broken            int64
		in, out, outputs, reused, peak   int64
		wall, cpu, queued                float64
		wallP50, wallP99, cpuP50, cpuP99 float64
		failures                         map[string]int64
		stopped                          bool
		idle                             int
	}
	sums := map[id]*sum{}
	for _, t := range c.s.wasm.List() {
		name, _ := etl.NameOf(t.Ref.Name)
		k := id{name, t.Ref.Digest}
		s := sums[k]
		if s == nil {
			s = &sum{failures: map[string]int64{}}
			sums[k] = s
		}
		st := &t.Stats
		s.done, s.dropped, s.broken = s.done+st.Done, s.dropped+st.Dropped, s.broken+st.Errors
		s.in, s.out, s.outputs, s.reused = s.in+st.BytesIn, s.out+st.BytesOut, s.outputs+st.Outputs, s.reused+st.Reused
		s.peak, s.idle, s.stopped = max(s.peak, st.PeakMemory), s.idle+t.Idle, s.stopped || t.Stopped
		s.wall, s.cpu, s.queued = s.wall+st.WallSum.Seconds(), s.cpu+st.CPUSum.Seconds(), s.queued+st.QueuedSum.Seconds()
		s.wallP50, s.wallP99 = max(s.wallP50, st.WallP50.Seconds()), max(s.wallP99, st.WallP99.Seconds())
		s.cpuP50, s.cpuP99 = max(s.cpuP50, st.CPUP50.Seconds()), max(s.cpuP99, st.CPUP99.Seconds())
		for class, n := range st.Failures {
			s.failures[class] += n
		}
	}
	for k, s := range sums {
		send := func(kind prometheus.ValueType, name, help string, v float64, more ...string) {
			labels, values := []string{"transform", "digest"}, []string{k.name, k.digest}
			for i := 0; i < len(more); i += 2 {
				labels, values = append(labels, more[i]), append(values, more[i+1])
			}
			ch <- prometheus.MustNewConstMetric(desc("transform_"+name, help, labels...), kind, v, values...)
		}
		counter := func(name, help string, v float64, more ...string) {
			send(prometheus.CounterValue, name, help, v, more...)
		}
		gauge := func(name, help string, v float64, more ...string) {
			send(prometheus.GaugeValue, name, help, v, more...)
		}
		const calls = "Objects that a transform was called for, by how that ended; broken is for another's sake."
		counter("calls_total", calls, float64(s.done), "outcome", "done")
		counter("calls_total", calls, float64(s.dropped), "outcome", "dropped")
		counter("calls_total", calls, float64(s.broken), "outcome", "broken")
		for class, n := range s.failures {
			counter("calls_total", calls, float64(n), "outcome", class)
		}
		counter("read_bytes_total", "Bytes that a transform read.", float64(s.in))
		counter("written_bytes_total", "Bytes that a transform wrote.", float64(s.out))
		counter("outputs_total", "Objects that a transform made.", float64(s.outputs))
		counter("pool_hits_total", "Calls that found an instance in the pool.", float64(s.reused))
		counter("wall_seconds_total", "Time of calls from start to end.", s.wall)
		counter("cpu_seconds_total", "Time of calls in which the guest ran.", s.cpu)
		counter("queued_seconds_total", "Time before calls began.", s.queued)
		const quantiles = "Quantiles of a call's time since the node's start, to a factor of two."
		gauge("call_seconds", quantiles, s.wallP50, "clock", "wall", "quantile", "0.5")
		gauge("call_seconds", quantiles, s.wallP99, "clock", "wall", "quantile", "0.99")
		gauge("call_seconds", quantiles, s.cpuP50, "clock", "cpu", "quantile", "0.5")
		gauge("call_seconds", quantiles, s.cpuP99, "clock", "cpu", "quantile", "0.99")
		gauge("peak_memory_bytes", "Largest memory of an instance.", float64(s.peak))
		gauge("idle_instances", "Instances in the pool.", float64(s.idle))
		gauge("stopped", "1 if this node has stopped the transform because it failed too often in a row.", boolGauge(s.stopped))
	}
	c.collectTransformUsage(ch)
}

// collectTransformUsage tells what transforms take of the node.
func (c *nodeCollector) collectTransformUsage(ch chan<- prometheus.Metric) {
	u := c.s.wasm.Usage()
	gauge := func(name, help string, v float64) {
		ch <- prometheus.MustNewConstMetric(desc("transforms_"+name, help), prometheus.GaugeValue, v)
	}
	gauge("memory_bytes", "Memory reserved for instances of transforms.", float64(u.Memory))
	gauge("memory_limit_bytes", "Memory that instances of transforms may reserve.", float64(u.Budget))
	gauge("running", "Guests that run now.", float64(u.Running))
	gauge("waiting", "Calls that wait for memory or a turn.", float64(u.Waiting))
}
