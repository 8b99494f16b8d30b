package natsbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
)

// Target is what the cluster map in effect says of the bus.
type Target struct {
	Generation uint64
	// Members are the coordinators: 1, 3 or 5.
	Members []Member
}

// CoordinatorOptions configure a Coordinator.
type CoordinatorOptions struct {
	// Server configures the servers that this node may run. Generation,
	// Members and Closed are set from the target.
	Server ServerOptions
	// Client is the node's client; it is pointed to the target's
	// coordinators, and talks to those of Server.Cluster only. The caller
	// closes it after Run has returned.
	Client *Client
	Clock  core.Clock
	Logger *slog.Logger
}

// Coordinator does a node's part in the bus that Shoal runs itself. The node
// tells it of every map in effect by [Coordinator.Follow]; it starts and stops
// the embedded server as that asks, and carries what the bus holds from one
// generation into the next. What it has begun it resumes after a crash. See
// docs/bus.md for the protocol.
type Coordinator struct {
	opts CoordinatorOptions
	log  *slog.Logger

	mu     sync.Mutex
	target Target
	cancel context.CancelFunc // ends the work on the target before

	// Owned by Run.
	server *Server
}

// Times between attempts and looks.
const (
	lookEvery    = 5 * time.Second
	restartAfter = 10 * time.Second
)

// NewCoordinator returns a coordinator that does nothing before Run.
func NewCoordinator(o CoordinatorOptions) (*Coordinator, error) {
	if o.Client == nil || o.Clock == nil || o.Logger == nil {
		return nil, fmt.Errorf("bus coordinator: client, clock and logger are required: %w", core.ErrInvalid)
	}
	if o.Server.Logger == nil {
		o.Server.Logger = o.Logger
	}
	o.Client.belongTo(o.Server.Cluster)
	return &Coordinator{opts: o, log: o.Logger.With("component", "bus")}, nil
}

// Follow says what is wanted from now on. A generation below one that was
// named before is ignored. It does not wait.
func (c *Coordinator) Follow(t Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.Generation < c.target.Generation ||
		t.Generation == c.target.Generation && slices.Equal(t.Members, c.target.Members) {
		return
	}
	c.target = Target{Generation: t.Generation, Members: slices.Clone(t.Members)}
	if c.cancel != nil {
		c.cancel()
	}
}

// Run works until ctx ends. It returns after the embedded server has stopped.
func (c *Coordinator) Run(ctx context.Context) error {
	sub, err := c.serveSnapshots()
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	defer c.stop()
	failed := ""
	for wait := lookEvery; ; {
		turn, t := c.turn(ctx)
		if t.Generation != 0 {
			err := c.converge(turn, t)
			switch {
			case ctx.Err() != nil:
				return nil
			case turn.Err() != nil: // a new target
				continue
			case err == nil:
				failed, wait = "", lookEvery
			default:
				if failed != err.Error() {
					failed = err.Error()
					c.log.Warn("bus generation not in place yet", "generation", t.Generation, "err", err)
				}
				wait = time.Second
			}
		}
		// turn ends with ctx and at a new target.
		if c.opts.Clock.Wait(turn, wait) != nil && ctx.Err() != nil {
			return nil
		}
	}
}

// turn begins work on the present target; its ctx ends when another comes.
func (c *Coordinator) turn(ctx context.Context) (context.Context, Target) {
	turn, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel()
	}
	c.cancel = cancel
	return turn, c.target
}

// converge does what is left to do for a target, and returns nil when that is
// nothing. It is called again and again and must be able to begin anywhere.
func (c *Coordinator) converge(ctx context.Context, t Target) error {
	urls := make([]string, 0, len(t.Members))
	for _, m := range t.Members {
		urls = append(urls, ClientURL(m.Client, c.opts.Server.ClientTLS != nil))
	}
	if err := c.opts.Client.Use(t.Generation, urls); err != nil {
		return err
	}
	former, err := c.formerStore(t.Generation)
	if err != nil {
		return err
	}
	if former != 0 {
		if err := c.retire(ctx, former, t.Generation); err != nil {
			return err
		}
	}
	if err := c.runMember(ctx, t); err != nil {
		return err
	}
	return c.fill(ctx, t, former)
}

// formerStore returns the newest generation below g of which this node has a
// store, 0 if there is none.
func (c *Coordinator) formerStore(g uint64) (uint64, error) {
	stores, err := generations(c.opts.Server.Dir, "bus-")
	if err != nil {
		return 0, err
	}
	var former uint64
	for _, s := range stores {
		if s < g {
			former = max(former, s)
		}
	}
	return former, nil
}

// generations lists the numbers of the files or directories with that prefix.
func generations(dir, prefix string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("bus store: %w", err)
	}
	var out []uint64
	for _, e := range entries {
		n, ok := strings.CutPrefix(e.Name(), prefix)
		if g, err := strconv.ParseUint(n, 10, 64); ok && err == nil {
			out = append(out, g)
		}
	}
	slices.Sort(out)
	return out, nil
}

// retire sees to it that this node's store of a former generation is not
// needed any more: what it holds is in a durable snapshot here, or the new
// generation is in use already. Then it stops the former server.
func (c *Coordinator) retire(ctx context.Context, former, present uint64) error {
	// A store that is more than one generation old was left behind by a node
	// that was away: the one between took over from it.
	if former+1 == present {
		if _, err := c.snapshot(former); err != nil {
			if err := c.carry(ctx, former); err != nil {
				return err
			}
		}
	}
	if c.server != nil && c.server.opts.Generation < present {
		c.stop()
	}
	return nil
}

// carry returns once a snapshot of the former generation is on this node's
// disk, or not needed. It reads the bus itself, together with the others that
// have closed it, but asks at the same time: they may be faster, and stop
// their servers then, and too few for an answer are left.
func (c *Coordinator) carry(ctx context.Context, former uint64) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, 2)
	until := func(what string, f func(context.Context) error) {
		wg.Go(func() {
			for {
				err := f(ctx)
				if err == nil || ctx.Err() != nil {
					results <- ctx.Err()
					return
				}
				c.log.Debug("former generation of the bus not carried over yet", "generation", former, "by", what, "err", err)
				if err := c.opts.Clock.Wait(ctx, jitter(time.Second, time.Second)); err != nil {
					results <- err
					return
				}
			}
		})
	}
	until("export", func(ctx context.Context) error { return c.closeAndExport(ctx, former) })
	until("others", func(ctx context.Context) error {
		if c.fetchSnapshot(ctx, former) == nil {
			return nil
		}
		return c.ready(ctx)
	})
	return <-results
}

// closeAndExport runs the closed server of a generation and writes what a
// majority of them holds to a snapshot file.
func (c *Coordinator) closeAndExport(ctx context.Context, g uint64) error {
	if c.server != nil && (c.server.opts.Generation != g || !c.server.opts.Closed || c.server.Healthy() != nil) {
		c.stop()
	}
	if c.server == nil {
		members, err := readMembers(c.storeDir(g))
		if err != nil {
			return err
		}
		o := c.opts.Server
		o.Generation, o.Members, o.Closed = g, members, true
		if err := c.start(ctx, o); err != nil {
			return err
		}
	}
	client, err := Connect(ClientOptions{
		URLs: []string{"nats://in-process"}, Generation: g, Cluster: c.opts.Server.Cluster, Name: c.opts.Server.Name, Logger: c.opts.Logger,
		Credentials: Credentials{User: closedUser, Password: c.server.password}, inProcess: c.server.nats,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	snap, err := client.Export(ctx)
	if err != nil {
		return err
	}
	return WriteSnapshot(c.opts.Server.Dir, snap)
}

// runMember runs the server of the present generation if this node is one of
// its coordinators, and none otherwise.
func (c *Coordinator) runMember(ctx context.Context, t Target) error {
	is := slices.ContainsFunc(t.Members, func(m Member) bool { return m.Name == c.opts.Server.Name })
	if c.server != nil {
		err := c.server.Healthy()
		if is && c.server.opts.Generation == t.Generation && err == nil {
			return nil
		}
		c.stop()
		if err != nil {
			c.log.Error("bus server starts again", "err", err)
			if err := c.opts.Clock.Wait(ctx, restartAfter); err != nil {
				return err
			}
		}
	}
	if !is {
		return nil
	}
	o := c.opts.Server
	o.Generation, o.Members = t.Generation, t.Members
	return c.start(ctx, o)
}

// fill makes the present generation from the snapshot of the former one, if
// this node has it and nobody has done so yet, and clears away what is not
// needed any more.
func (c *Coordinator) fill(ctx context.Context, t Target, former uint64) error {
	client := c.opts.Client
	if err := c.ready(ctx); err != nil {
		snap, missing := c.snapshot(t.Generation - 1)
		if missing != nil {
			return err // somebody else has it, or `shoal init` is to come
		}
		if err := client.Import(ctx, snap, len(t.Members)); err != nil {
			return err
		}
		c.log.Info("bus generation filled", "generation", t.Generation)
	}
	if former != 0 {
		if err := c.clear(t.Generation); err != nil {
			return err
		}
	}
	return c.replicate(ctx, t)
}

// replicate adds the replicas that were missing when the generation began. One
// node does so: two at the same time would only be in each other's way.
func (c *Coordinator) replicate(ctx context.Context, t Target) error {
	st, err := c.opts.Client.Status(ctx)
	if err != nil || st.Leader != c.opts.Server.Name {
		return err
	}
	if err := c.opts.Client.Replicate(ctx, len(t.Members)); err != nil && !errors.Is(err, errNoPeers) {
		return err
	}
	return nil
}

// ready says whether the present generation is in use, without much waiting.
func (c *Coordinator) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	return c.opts.Client.Ready(ctx)
}

// clear removes the stores below the present generation and the snapshots
// below the one that it was made from.
func (c *Coordinator) clear(present uint64) error {
	for prefix, limit := range map[string]uint64{"bus-": present, "snapshot-": present - 1} {
		old, err := generations(c.opts.Server.Dir, prefix)
		if err != nil {
			return err
		}
		for _, g := range old {
			if g >= limit {
				continue
			}
			if err := os.RemoveAll(filepath.Join(c.opts.Server.Dir, prefix+strconv.FormatUint(g, 10))); err != nil {
				return fmt.Errorf("bus store: %w", err)
			}
		}
	}
	return nil
}

func (c *Coordinator) storeDir(g uint64) string {
	return filepath.Join(c.opts.Server.Dir, generationName(g))
}

func (c *Coordinator) start(ctx context.Context, o ServerOptions) error {
	s, err := Start(ctx, o)
	if err != nil {
		return err
	}
	c.server = s
	c.log.Info("bus server started", "generation", o.Generation, "closed", o.Closed, "client", s.ClientAddr(), "route", s.RouteAddr())
	return nil
}

func (c *Coordinator) stop() {
	if c.server != nil {
		c.server.Shutdown()
		c.log.Info("bus server stopped", "generation", c.server.opts.Generation)
		c.server = nil
	}
}

// Generations lists, for `shoal recover`, the generations of which the directory
// has a server's store with content, or the snapshot that they are made from.
func Generations(dir string) ([]uint64, error) {
	stores, err := generations(dir, "bus-")
	if err != nil {
		return nil, err
	}
	var out []uint64
	for _, g := range stores {
		store := filepath.Join(dir, generationName(g))
		l, err := readLabel(store)
		if err != nil || l.Closed {
			continue
		}
		// A standalone server has no files of its group, but streams.
		for _, name := range []string{natsFiles, "jetstream/$G/streams"} {
			if has, err := exists(filepath.Join(store, name)); err != nil {
				return nil, err
			} else if has {
				out = append(out, g)
				break
			}
		}
	}
	snapshots, err := generations(dir, "snapshot-")
	for _, g := range snapshots {
		out = append(out, g+1)
	}
	slices.Sort(out)
	return slices.Compact(out), err
}

// WriteSnapshot puts a generation's snapshot where a [Coordinator] with that
// directory looks for it. It is for `shoal recover`: where too many coordinators
// of that generation are lost for good, the next one is made from what an
// operator has, above all the newest map.
func WriteSnapshot(dir string, s bus.Snapshot) error {
	b, err := s.Encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("bus store: %w", err)
	}
	return writeFile(snapshotFile(dir, s.Generation), b)
}

func snapshotFile(dir string, g uint64) string {
	return filepath.Join(dir, "snapshot-"+strconv.FormatUint(g, 10))
}

// snapshot reads the snapshot of a generation that this node has.
func (c *Coordinator) snapshot(g uint64) (bus.Snapshot, error) {
	file := snapshotFile(c.opts.Server.Dir, g)
	b, err := os.ReadFile(file)
	if err != nil {
		return bus.Snapshot{}, fmt.Errorf("bus store: %w", err)
	}
	s, err := bus.DecodeSnapshot(b)
	if err == nil && s.Generation != g {
		err = fmt.Errorf("it is of generation %d: %w", s.Generation, core.ErrCorrupt)
	}
	if err != nil {
		return bus.Snapshot{}, fmt.Errorf("bus store: %s: %w", file, err)
	}
	return s, nil
}
