package nodeserver

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// registry gathers the node's metrics for Prometheus.
func (s *server) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &nodeCollector{s})
	return r
}

// nodeCollector reads the node's own counts when it is asked.
type nodeCollector struct{ s *server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("shoal_"+name, help, labels, nil)
}

// Describe is part of prometheus.Collector: the metrics are not fixed.
func (*nodeCollector) Describe(chan<- *prometheus.Desc) {}

// Collect is part of prometheus.Collector.
func (c *nodeCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(name, help string, v float64) {
		ch <- prometheus.MustNewConstMetric(desc(name, help), prometheus.GaugeValue, v)
	}
	st := c.s.node.Status()
	gauge("map_epoch", "Epoch of the map in effect.", float64(st.Epoch))
	gauge("lease_held", "1 while this node holds its lease.", boolGauge(st.Lease))
	gauge("slots_owned", "Slots that this node owns.", float64(st.Slots))
	gauge("under_replicated_objects", "Objects of this node's slots that lack shards.", float64(st.Under))
	gauge("under_replicated_bytes", "Bytes of objects of this node's slots that lack shards.", float64(st.UnderBytes))
	gauge("unavailable_objects", "Objects of this node's slots of which too few shards can be reached.", float64(st.Unavailable))
	ch <- prometheus.MustNewConstMetric(desc("reconciled_bytes_total", "Bytes of shards and records that reconcile and joining disks of this node moved."), prometheus.CounterValue, float64(st.Moved))
	ch <- prometheus.MustNewConstMetric(desc("reconcile_slot_scans_total", "Times that reconcile went over the objects of a slot."), prometheus.CounterValue, float64(st.Scans))
	ch <- prometheus.MustNewConstMetric(desc("sendfile_bytes_total", "Bytes of object data that went from files to clients unverified, for buckets with sendfile=on."), prometheus.CounterValue, float64(st.SentFiles))
	ch <- prometheus.MustNewConstMetric(desc("protocol_alarms_total", "Violations that an operator must look at."), prometheus.CounterValue, float64(st.Alarms))
	c.collectRemotes(ch)
	c.collectTransforms(ch)
	ch <- prometheus.MustNewConstMetric(desc("reconcile_minimum_bytes_total", "Least bytes that reconcile had to move for what it made."), prometheus.CounterValue, float64(st.Least))
	gauge("reconcile_left_bytes", "Bytes of shards that reconcile has yet to move.", float64(st.Left))
	for kind, n := range c.s.strikes.totals() {
		ch <- prometheus.MustNewConstMetric(desc("events_total", "What happened to nodes, disks and slots, as this node saw it; every node sees everything, so take the maximum over nodes.", "kind"),
			prometheus.CounterValue, float64(n), kind)
	}
	m := c.s.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	for op, t := range m.totals {
		counter := func(name, help string, v float64) {
			ch <- prometheus.MustNewConstMetric(desc(name, help, "op"), prometheus.CounterValue, v, op)
		}
		counter("requests_total", "Client operations by kind.", float64(t.count))
		counter("request_errors_total", "Client operations that failed for the cluster's sake.", float64(t.errors))
		counter("request_bytes_total", "Bytes of object data to and from clients.", float64(t.bytes))
		counter("request_seconds_total", "Time spent in client operations.", t.seconds)
	}
}

func boolGauge(v bool) float64 {
	if v {
		return 1
	}
	return 0
}
