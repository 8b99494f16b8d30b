package engine

import (
	"context"
	"maps"
	"strings"
	"sync"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/remote"
)

// What a job asks of remotes is counted on the node that asks, which need not be the
// one that works on the object: the owner of the destination's slot writes, that of
// the source's fetches. So the job's name goes with what is asked of them: in requests
// for bytes, and of writes in the mark that they leave at the remote.

// jobCosts are the costs of the jobs that this node counts for, by id.
type jobCosts struct {
	mu   sync.Mutex
	jobs map[string]*remote.Cost
}

// CountCost has what this node asks of remotes for a job counted, from now on, until
// the function that it returns is called.
func (n *Node) CountCost(job string) (stop func()) {
	c := &n.costs
	c.mu.Lock()
	defer c.mu.Unlock()
	jobs := maps.Clone(c.jobs)
	if jobs == nil {
		jobs = map[string]*remote.Cost{}
	}
	if jobs[job] == nil {
		jobs[job] = new(remote.Cost)
	}
	c.jobs = jobs
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.jobs = maps.Clone(c.jobs)
		delete(c.jobs, job)
	}
}

// CostOf returns what this node has asked of remotes for a job, zero if it does not
// count for it.
func (n *Node) CostOf(job string) remote.CostTotals {
	if c := n.costs.of(job); c != nil {
		return c.Totals()
	}
	return remote.CostTotals{}
}

func (c *jobCosts) of(job string) *remote.Cost {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jobs[job]
}

type jobKey struct{}

// ForJob has what is done under the ctx, here and on other nodes, counted as a job's.
func (n *Node) ForJob(ctx context.Context, job string) context.Context {
	return n.countFor(context.WithValue(ctx, jobKey{}, job), job)
}

// jobIn returns the job that something is done for, "" if for none.
func jobIn(ctx context.Context) string {
	job, _ := ctx.Value(jobKey{}).(string)
	return job
}

// countFor has requests to remotes under the ctx counted for a job, if this node
// counts for it.
func (n *Node) countFor(ctx context.Context, job string) context.Context {
	if job == "" {
		return ctx
	}
	if c := n.costs.of(job); c != nil {
		return remote.WithCost(ctx, c)
	}
	return ctx
}

// jobOf is the job whose mark a record has.
func jobOf(rec *core.Record) string {
	if rec == nil {
		return ""
	}
	job, _, _ := strings.Cut(rec.Meta[originMeta], ":")
	return job
}
