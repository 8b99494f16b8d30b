package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// poll is how long one request waits for an event at the server.
const poll = 20 * time.Second

// Cluster returns the state of the whole.
func (c *Client) Cluster(ctx context.Context) (out api.Cluster, err error) {
	_, err = c.call(ctx, request{method: http.MethodGet, path: api.ClusterPath}, nil, &out)
	return out, err
}

// WaitHealthy waits until the cluster is healthy. Meanwhile each is told the
// state every 20 seconds or so.
func (c *Client) WaitHealthy(ctx context.Context, each func(api.Cluster)) (out api.Cluster, err error) {
	for wait := time.Duration(0); ; wait = poll { // the first answer comes at once
		r := request{
			method: http.MethodGet, path: api.ClusterPath, patience: wait, retryFor: watching,
			query: url.Values{"healthy": {"true"}, "wait": {wait.String()}},
		}
		var state api.Cluster
		if _, err := c.call(ctx, r, nil, &state); err != nil {
			return out, err
		}
		if out = state; out.Healthy {
			return out, nil
		}
		each(out)
	}
}

// watching is how long the watch of an event survives without any answer.
const watching = 2 * time.Minute

// Nodes lists the nodes.
func (c *Client) Nodes(ctx context.Context) ([]api.Node, error) {
	var out api.Nodes
	_, err := c.call(ctx, request{method: http.MethodGet, path: api.NodesPath}, nil, &out)
	return out.Nodes, err
}

// Node describes a node.
func (c *Client) Node(ctx context.Context, id core.NodeID) (out api.Node, err error) {
	_, err = c.call(ctx, request{method: http.MethodGet, path: api.NodePath(id)}, nil, &out)
	return out, err
}

// SetNode changes a node's weight and zone.
func (c *Client) SetNode(ctx context.Context, id core.NodeID, p api.Placement) (out api.Node, err error) {
	_, err = c.call(ctx, request{method: http.MethodPatch, path: api.NodePath(id)}, p, &out)
	return out, err
}

// NodeAction begins something with a node; [Client.WaitHealthy] or the node's
// state tell when it is over.
func (c *Client) NodeAction(ctx context.Context, id core.NodeID, a api.NodeAction) (out api.Node, err error) {
	r := request{method: http.MethodPost, path: api.NodePath(id) + "/" + string(a), patience: time.Minute}
	_, err = c.call(ctx, r, nil, &out)
	return out, err
}

// Disks lists the disks of a node, or all if it is "".
func (c *Client) Disks(ctx context.Context, node core.NodeID) ([]api.Disk, error) {
	r := request{method: http.MethodGet, path: api.DisksPath}
	if node != "" {
		r.query = url.Values{"node": {string(node)}}
	}
	var out api.Disks
	_, err := c.call(ctx, r, nil, &out)
	return out.Disks, err
}

// SetDisk changes a disk's weight.
func (c *Client) SetDisk(ctx context.Context, node core.NodeID, disk string, p api.Placement) (out api.Disk, err error) {
	_, err = c.call(ctx, request{method: http.MethodPatch, path: api.DiskPath(node, disk)}, p, &out)
	return out, err
}

// DiskAction does something with a disk.
func (c *Client) DiskAction(ctx context.Context, node core.NodeID, disk string, a api.DiskAction) (out api.Disk, err error) {
	r := request{method: http.MethodPost, path: api.DiskPath(node, disk) + "/" + string(a), patience: time.Minute}
	_, err = c.call(ctx, r, nil, &out)
	return out, err
}

// Map returns the cluster map.
func (c *Client) Map(ctx context.Context) (*core.Map, error) {
	out := new(core.Map)
	_, err := c.call(ctx, request{method: http.MethodGet, path: api.MapPath}, nil, out)
	return out, err
}

// Performance returns what the nodes have done of late.
func (c *Client) Performance(ctx context.Context) (out api.Performance, err error) {
	_, err = c.call(ctx, request{method: http.MethodGet, path: api.PerformancePath}, nil, &out)
	return out, err
}

// Transforms lists the transforms.
func (c *Client) Transforms(ctx context.Context) ([]api.Transform, error) {
	var out api.Transforms
	_, err := c.call(ctx, request{method: http.MethodGet, path: api.TransformsPath}, nil, &out)
	return out.Transforms, err
}

// Transform describes a transform.
func (c *Client) Transform(ctx context.Context, name string) (out api.Transform, err error) {
	_, err = c.call(ctx, request{method: http.MethodGet, path: api.TransformPath(name)}, nil, &out)
	return out, err
}

// PutTransform registers a transform; it is validated first.
func (c *Client) PutTransform(ctx context.Context, t api.Transform) (out api.Transform, err error) {
	r := request{method: http.MethodPut, path: api.TransformPath(t.Name), patience: time.Minute}
	_, err = c.call(ctx, r, t, &out)
	return out, err
}

// DeleteTransform removes a transform.
func (c *Client) DeleteTransform(ctx context.Context, name string) error {
	repeated, err := c.call(ctx, request{method: http.MethodDelete, path: api.TransformPath(name)}, nil, nil)
	return goneIf(repeated, err)
}

// TransformAction starts or stops a transform.
func (c *Client) TransformAction(ctx context.Context, name, action string) (out api.Transform, err error) {
	_, err = c.call(ctx, request{method: http.MethodPost, path: api.TransformPath(name) + "/" + url.PathEscape(action)}, nil, &out)
	return out, err
}

// TransformErrors lists objects that a transform refused, of a job if that is
// not "".
func (c *Client) TransformErrors(ctx context.Context, name, job string) ([]api.JobError, error) {
	r := request{method: http.MethodGet, path: api.TransformPath(name) + "/errors"}
	if job != "" {
		r.query = url.Values{"job": {job}}
	}
	var out api.JobErrors
	_, err := c.call(ctx, r, nil, &out)
	return out.Errors, err
}

// TransformLogs returns the last lines that a transform wrote.
func (c *Client) TransformLogs(ctx context.Context, name string) ([]api.TransformLog, error) {
	var out api.TransformLogs
	_, err := c.call(ctx, request{method: http.MethodGet, path: api.TransformPath(name) + "/logs"}, nil, &out)
	return out.Lines, err
}
