package apitest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// Nodes are the nodes and disks that the cluster says it has.
type Nodes struct {
	mu      sync.Mutex
	nodes   []api.Node
	disks   []api.Disk
	changed chan struct{} // closed at the next change
}

// since is when everything got its state.
func since() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func newNodes(n int) *Nodes {
	c := &Nodes{changed: make(chan struct{})}
	for i := range n {
		id := core.NodeID("n" + strconv.Itoa(i+1))
		c.nodes = append(c.nodes, api.Node{
			ID: id, State: core.NodeActive, Since: since(), Weight: 1, Voter: i < 3, Lease: true, Epoch: 7, Boot: 1, Version: "test",
			Slots: 4096 / n, Disks: 2, Capacity: 2 << 40, Used: 1 << 30,
		})
		for j := range 2 {
			name := "d" + strconv.Itoa(j+1)
			c.disks = append(c.disks, api.Disk{
				ID: string(id) + "/" + name, Number: core.DiskID(2*i + j + 1), Node: id, Name: name, Path: "/mnt/" + name,
				State: core.DiskOK, Since: since(), Weight: 1024, Capacity: 1 << 40, Used: 1 << 29, Slots: 100, Objects: 1000,
			})
		}
	}
	return c
}

func (c *Nodes) setURL(i int, url string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i].URL = url
}

// SetNodeState changes what the map says of a node.
func (c *Nodes) SetNodeState(id core.NodeID, s core.NodeState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, err := c.node(id); err == nil {
		n.State = s
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Nodes) node(id core.NodeID) (*api.Node, error) {
	for i := range c.nodes {
		if c.nodes[i].ID == id {
			return &c.nodes[i], nil
		}
	}
	return nil, fmt.Errorf("node %s: %w", id, core.ErrNotFound)
}

func (c *Nodes) disk(node core.NodeID, name string) (*api.Disk, error) {
	for i := range c.disks {
		if c.disks[i].Node == node && c.disks[i].Name == name {
			return &c.disks[i], nil
		}
	}
	return nil, fmt.Errorf("disk %s/%s: %w", node, name, core.ErrNotFound)
}

// Cluster implements server.ClusterService.
func (c *Nodes) Cluster(context.Context) (api.Cluster, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state(), nil
}

func (c *Nodes) state() api.Cluster {
	s := api.Cluster{
		ClusterID: "c0ffee", Epoch: 7, NATSLeader: "n1", Healthy: true, Rebalance: api.Rebalance{State: "idle"},
		Nodes: append([]api.Node{}, c.nodes...),
	}
	for _, n := range c.nodes {
		if n.State != core.NodeActive {
			s.Healthy = false
			s.Problems = append(s.Problems, fmt.Sprintf("node %s is %s", n.ID, n.State))
		}
	}
	for _, d := range c.disks {
		if d.State != core.DiskOK {
			s.Healthy = false
			s.Problems = append(s.Problems, fmt.Sprintf("disk %s is %s", d.ID, d.State))
		}
	}
	return s
}

// AwaitHealthy implements server.ClusterService.
func (c *Nodes) AwaitHealthy(ctx context.Context) (api.Cluster, error) {
	for {
		c.mu.Lock()
		s, changed := c.state(), c.changed
		c.mu.Unlock()
		if s.Healthy {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, nil
		}
	}
}

// Nodes implements server.ClusterService.
func (c *Nodes) Nodes(context.Context) ([]api.Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]api.Node{}, c.nodes...), nil
}

// Node implements server.ClusterService.
func (c *Nodes) Node(_ context.Context, id core.NodeID) (api.Node, error) {
	return c.changeNode(id, func(*api.Node) {})
}

func (c *Nodes) changeNode(id core.NodeID, change func(*api.Node)) (api.Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.node(id)
	if err != nil {
		return api.Node{}, err
	}
	change(n)
	return *n, nil
}

// SetNode implements server.ClusterService.
func (c *Nodes) SetNode(_ context.Context, id core.NodeID, p api.Placement) (api.Node, error) {
	return c.changeNode(id, func(n *api.Node) {
		if p.Weight != nil {
			n.Weight = *p.Weight
		}
		if p.Zone != nil {
			n.Zone = *p.Zone
		}
	})
}

// NodeAction implements server.ClusterService.
func (c *Nodes) NodeAction(_ context.Context, id core.NodeID, a api.NodeAction) (api.Node, error) {
	return c.changeNode(id, func(n *api.Node) {
		n.State = map[api.NodeAction]core.NodeState{
			api.MaintenanceStart: core.NodeMaintenance, api.MaintenanceStop: core.NodeActive, api.Decommission: core.NodeDraining,
		}[a]
	})
}

// Disks implements server.ClusterService.
func (c *Nodes) Disks(_ context.Context, node core.NodeID) ([]api.Disk, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if node != "" {
		if _, err := c.node(node); err != nil {
			return nil, err
		}
	}
	var out []api.Disk
	for _, d := range c.disks {
		if node == "" || d.Node == node {
			out = append(out, d)
		}
	}
	return out, nil
}

// Disk implements server.ClusterService.
func (c *Nodes) Disk(_ context.Context, node core.NodeID, disk string) (api.Disk, error) {
	return c.changeDisk(node, disk, func(*api.Disk) {})
}

func (c *Nodes) changeDisk(node core.NodeID, disk string, change func(*api.Disk)) (api.Disk, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, err := c.disk(node, disk)
	if err != nil {
		return api.Disk{}, err
	}
	change(d)
	return *d, nil
}

// SetDisk implements server.ClusterService.
func (c *Nodes) SetDisk(_ context.Context, node core.NodeID, disk string, p api.Placement) (api.Disk, error) {
	return c.changeDisk(node, disk, func(d *api.Disk) { d.Weight = *p.Weight })
}

// DiskAction implements server.ClusterService.
func (c *Nodes) DiskAction(_ context.Context, node core.NodeID, disk string, a api.DiskAction) (api.Disk, error) {
	return c.changeDisk(node, disk, func(d *api.Disk) {
		d.State = map[api.DiskAction]core.DiskState{
			api.DetachDisk: core.DiskDetached, api.AttachDisk: core.DiskOK, api.FormatDisk: core.DiskNew, api.ForceFormatDisk: core.DiskNew, api.RebuildDisk: core.DiskOK,
		}[a]
	})
}

// Map implements server.ClusterService.
func (c *Nodes) Map(context.Context) (*core.Map, error) {
	return &core.Map{Cluster: "c0ffee", Epoch: 7, Slots: core.SlotTable{{Term: 1, Insync: []core.DiskID{1}}}}, nil
}

// Performance implements server.PerformanceService.
func (c *Nodes) Performance(context.Context) (api.Performance, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	op := api.OpPerformance{Op: "get", Count: 100, Rate: 20, Bytes: 20 << 20, P50: 850, P90: 1200, P99: 35_000, Max: 1_500_000}
	p := api.Performance{Time: since(), Seconds: 5, Total: api.NodePerformance{
		Ops: []api.OpPerformance{op}, Series: []api.Sample{{Time: since(), Ops: 20, BytesOut: 20 << 20, P99: 35_000}},
	}, Events: []api.Event{{Time: since(), Kind: "node_down", Subject: "n3", Text: "n3 down", Epoch: 7}}}
	for _, n := range c.nodes {
		p.Nodes = append(p.Nodes, api.NodePerformance{Node: n.ID, Ops: []api.OpPerformance{op}})
	}
	return p, nil
}
