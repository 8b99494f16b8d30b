package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// harness is what a script works with.
type harness struct {
	*cluster
	ends *ends // nil without remote buckets
	o    *options
	res  result

	start time.Time
	mu    sync.Mutex
	out   io.Writer
	// transforms are the names of those that were registered.
	transforms []string
	// blows are the failures that are to be taken back, oldest first.
	blows []*blow
}

func newHarness(o *options, out io.Writer) *harness {
	return &harness{o: o, out: out, start: time.Now(), res: result{Script: o.script, Seed: o.seed}}
}

// say tells a step.
func (h *harness) say(format string, args ...any) {
	if h.o.json {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(h.out, "%7.1f s  %s\n", time.Since(h.start).Seconds(), fmt.Sprintf(format, args...))
}

// open starts the cluster, or finds the one that runs healthy.
func (h *harness) open(ctx context.Context) error {
	began := time.Now()
	var err error
	if h.o.from != "" {
		if h.ends, err = startEnds(ctx, h.o); err != nil {
			return err
		}
	}
	if h.o.endpoint != "" {
		if h.cluster, err = joinCluster(ctx, h.o); err != nil {
			return errors.Join(err, h.ends.close())
		}
		if _, err := h.healthy(ctx); err != nil {
			h.api.Close()
			return errors.Join(cannotf("the cluster is not healthy before the first strike: %w", err), h.ends.close())
		}
		return nil
	}
	if h.cluster, err = startCluster(ctx, h.o, h.ends); err != nil {
		return errors.Join(err, h.ends.close())
	}
	h.say("cluster %s: %d nodes of %d disks, ready in %s", h.dev, h.o.nodes, h.o.disks, tenths(time.Since(began)))
	return nil
}

// close takes back what was struck and removes what was made. If something is
// amiss the nodes' logs are kept.
func (h *harness) close(ctx context.Context, amiss bool) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	if amiss && h.dev != "" {
		dir, err := h.saveLogs(ctx, h.o.logs)
		if err == nil {
			h.say("the nodes' logs are in %s", dir)
		}
		errs = append(errs, err)
	}
	if !h.own || h.o.keep {
		errs = append(errs, h.restoreAll(ctx))
	}
	if !h.own {
		errs = append(errs, h.ends.forget(ctx, h.api))
	}
	if !h.own && !h.o.keep {
		errs = append(errs, h.removeTransforms(ctx))
	}
	if h.o.keep && h.own && h.ends == nil {
		h.say("the cluster stays: shoal dev clean --name %s removes it", h.dev)
		h.api.Close()
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, h.remove(ctx), h.ends.close())...)
}

// healthy waits until the cluster says that nothing is amiss, and returns how
// long that took.
func (h *harness) healthy(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, h.o.timeout)
	defer cancel()
	var last api.Cluster
	_, err := h.api.WaitHealthy(ctx, func(c api.Cluster) { last = c })
	if err != nil {
		return 0, fmt.Errorf("not fully redundant again after %s: %q: %w", tenths(time.Since(began)), last.Problems, err)
	}
	return time.Since(began), nil
}

// active are the nodes in service, in order of name.
func (h *harness) active(ctx context.Context) ([]core.NodeID, error) {
	nodes, err := h.api.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	var out []core.NodeID
	for _, n := range nodes {
		if n.State == core.NodeActive {
			out = append(out, n.ID)
		}
	}
	slices.Sort(out)
	if len(out) < 2 {
		return nil, cannotf("%d nodes in service: want two, of which one can be lost", len(out))
	}
	return out, nil
}

// tenths is a duration for people.
func tenths(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }
