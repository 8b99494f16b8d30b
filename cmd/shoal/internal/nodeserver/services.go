package nodeserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
	"github.com/shoalstore/shoal/core/job"
	"github.com/shoalstore/shoal/placement"
	"github.com/shoalstore/shoal/plugins/api"
	apiserver "github.com/shoalstore/shoal/plugins/api/server"
)

// methodLocal asks a node for what only it knows.
const methodLocal uint16 = 96

// local is what a node tells others of its disks and its speed.
type local struct {
	Version string      `json:"version"`
	Started time.Time   `json:"started"`
	Disks   []localDisk `json:"disks"`
	// Unusable are the disks of the configuration that could not be opened.
	Unusable []unusableDisk      `json:"unusable,omitempty"`
	Perf     api.NodePerformance `json:"perf"`
	Events   []api.Event         `json:"events,omitempty"`
}

type unusableDisk struct {
	Name    string `json:"name"`
	Path    string `json:"path"`
	Problem string `json:"problem"`
}

type localDisk struct {
	UUID     string `json:"uuid"`
	Path     string `json:"path"`
	Capacity int64  `json:"capacity"`
	Used     int64  `json:"used"`
	Room     int64  `json:"room"` // that may be filled
	Free     int64  `json:"free"` // of the file system
	Objects  int64  `json:"objects"`
	Shards   int64  `json:"shards"`
	Errors   int64  `json:"errors"`
	Problem  string `json:"problem,omitempty"`
}

func (s *server) serveLocal(ctx context.Context, _ core.NodeID, _ []byte) ([]byte, error) {
	out := local{Version: s.version, Started: s.started, Perf: s.meter.performance(), Events: s.strikes.list()}
	for _, d := range s.openDisks() {
		st, err := d.disk.Stats(ctx)
		if err != nil {
			continue
		}
		l := localDisk{
			UUID: d.disk.Identity().UUID, Path: d.path, Capacity: st.Capacity, Used: st.MetaBytes + st.ShardBytes, Room: max(0, st.Free-st.Reserve), Free: st.Free,
			Objects: st.Objects, Shards: st.Shards,
			Errors: st.Corruptions + st.Reads.Errors + st.Writes.Errors + st.Syncs.Errors,
		}
		if err := d.disk.Err(); err != nil {
			l.Problem = err.Error()
		}
		out.Disks = append(out.Disks, l)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range s.cfg.Disks {
		if why := s.unusable[d.Path]; why != nil {
			out.Unusable = append(out.Unusable, unusableDisk{diskName(i, d.Path), d.Path, why.Error()})
		}
	}
	return json.Marshal(out)
}

// locals asks all nodes that should answer; those that do not are left out.
func (s *server) locals(ctx context.Context) map[core.NodeID]local {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out := map[core.NodeID]local{}
	m := s.node.Map()
	if m == nil {
		return out
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range m.Nodes {
		id := m.Nodes[i].ID
		if st := m.Nodes[i].State; st == core.NodeDown || st == core.NodeDecommissioned {
			continue
		}
		wg.Go(func() {
			b, err := s.node.CallNode(ctx, id, methodLocal, nil)
			var l local
			if err != nil || json.Unmarshal(b, &l) != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[id] = l
		})
	}
	wg.Wait()
	return out
}

// clusterService is api/server's view of nodes, disks and the map.
type clusterService struct{ s *server }

func (c clusterService) mapNow() (*core.Map, error) {
	if m := c.s.node.Map(); m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("this node knows no map in effect yet: %w", core.ErrUnavailable)
}

// Map is part of apiserver.ClusterService.
func (c clusterService) Map(context.Context) (*core.Map, error) { return c.mapNow() }

// Cluster is part of apiserver.ClusterService.
func (c clusterService) Cluster(ctx context.Context) (api.Cluster, error) {
	m, err := c.mapNow()
	if err != nil {
		return api.Cluster{}, err
	}
	out := api.Cluster{ClusterID: m.Cluster, Epoch: m.Epoch, Rebalance: api.Rebalance{State: "idle"}}
	var statuses map[core.NodeID]engine.Status
	var locals map[core.NodeID]local
	var ask sync.WaitGroup
	ask.Go(func() { statuses = c.s.node.Statuses(ctx) })
	ask.Go(func() { locals = c.s.locals(ctx) })
	ask.Go(func() { out.NATSLeader = c.busLeader(ctx) })
	ask.Wait()
	now := c.s.clock.Now()
	for _, st := range statuses {
		out.UnderReplicated.Amount = out.UnderReplicated.Add(api.Amount{Objects: st.Under, Bytes: st.UnderBytes})
		out.UnderReplicated.Rate.Objects += st.HealRate
		out.UnderReplicated.Rate.Bytes += st.HealBytes
		out.Unavailable.Objects += st.Unavailable
		out.Rebalance.MovedBytes += st.Moved
		out.Rebalance.MinimumBytes += st.Least + st.Left
		out.Rebalance.LeftBytes += st.Left
		out.Rebalance.Rate += st.MoveRate
		if st.Pending {
			out.Rebalance.State = "running"
		}
	}
	out.UnderReplicated.ETA = eta(now, out.UnderReplicated)
	if r := &out.Rebalance; r.LeftBytes > 0 && r.Rate > 0 {
		r.ETA = fromNow(now, float64(r.LeftBytes)/r.Rate)
	}
	out.Problems = problems(situation{m: m, statuses: statuses, now: now, grace: placement.DefaultGrace})
	if out.Rebalance.State != "idle" {
		out.Problems = append(out.Problems, "data is being moved or checked")
	}
	out.Healthy = len(out.Problems) == 0
	out.Nodes = nodesOf(m, statuses, locals)
	return out, nil
}

// eta is when all objects will be redundant at the present rate, nil if nobody
// knows.
func eta(now time.Time, l api.Lacking) *time.Time {
	switch {
	case l.Bytes > 0 && l.Rate.Bytes > 0:
		return fromNow(now, float64(l.Bytes)/l.Rate.Bytes)
	case l.Objects > 0 && l.Rate.Objects > 0:
		return fromNow(now, float64(l.Objects)/l.Rate.Objects)
	}
	return nil
}

// fromNow is a number of seconds from now, nil if that is too long to mean anything.
func fromNow(now time.Time, seconds float64) *time.Time {
	const year = 365 * 24 * 3600
	if seconds > year {
		return nil
	}
	t := now.Add(time.Duration(seconds * float64(time.Second))).Round(time.Second).UTC()
	return &t
}

// busLeader is the node that leads the bus, "" if nobody says so soon.
func (c clusterService) busLeader(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	st, err := c.s.bus.Status(ctx)
	if err != nil {
		return ""
	}
	return st.Leader
}

// replaced says whether a disk that is out of use has another in its place: one
// of the same name that is in use, or newer. What the old one had is built again
// elsewhere, and counted until it is.
func replaced(m *core.Map, d *core.Disk) bool {
	return d.State != core.DiskOK && slices.ContainsFunc(m.Disks, func(o core.Disk) bool {
		return o.Node == d.Node && o.Name == d.Name && (o.State == core.DiskOK || o.ID > d.ID)
	})
}

// AwaitHealthy is part of apiserver.ClusterService.
func (c clusterService) AwaitHealthy(ctx context.Context) (api.Cluster, error) {
	for {
		// The answer is wanted even at the deadline.
		out, err := c.Cluster(context.WithoutCancel(ctx))
		if err != nil || out.Healthy || c.s.clock.Wait(ctx, 250*time.Millisecond) != nil {
			return out, err
		}
	}
}

// nodesOf describes the nodes of a map.
func nodesOf(m *core.Map, statuses map[core.NodeID]engine.Status, locals map[core.NodeID]local) []api.Node {
	out := make([]api.Node, 0, len(m.Nodes))
	for i := range m.Nodes {
		n := &m.Nodes[i]
		a := api.Node{
			ID: n.ID, State: n.State, Since: n.Since, Zone: n.Zone, Weight: max(n.Weight, 0), URL: "http://" + n.Client, Peer: n.Peer, Bus: n.Bus, Boot: n.Boot,
			Voter: slices.ContainsFunc(m.Voters, func(v core.Voter) bool { return v.Node == n.ID }),
		}
		if st, ok := statuses[n.ID]; ok {
			a.Lease, a.Epoch, a.Slots = st.Lease, st.Epoch, st.Slots
		}
		if l, ok := locals[n.ID]; ok {
			a.Version, a.Started = l.Version, &l.Started
			for _, d := range l.Disks {
				a.Capacity += d.Capacity
				a.Used += d.Used
			}
		}
		for j := range m.Disks {
			if d := &m.Disks[j]; d.Node == n.ID && !replaced(m, d) {
				a.Disks++
			}
		}
		out = append(out, a)
	}
	return out
}

// Nodes is part of apiserver.ClusterService.
func (c clusterService) Nodes(ctx context.Context) ([]api.Node, error) {
	m, err := c.mapNow()
	if err != nil {
		return nil, err
	}
	var statuses map[core.NodeID]engine.Status
	var asking sync.WaitGroup
	asking.Go(func() { statuses = c.s.node.Statuses(ctx) })
	locals := c.s.locals(ctx)
	asking.Wait()
	return nodesOf(m, statuses, locals), nil
}

// Node is part of apiserver.ClusterService.
func (c clusterService) Node(ctx context.Context, id core.NodeID) (api.Node, error) {
	all, err := c.Nodes(ctx)
	if err != nil {
		return api.Node{}, err
	}
	for _, n := range all {
		if n.ID == id {
			return n, nil
		}
	}
	return api.Node{}, fmt.Errorf("node %s: %w", id, core.ErrNotFound)
}

// change proposes one change of the map.
func (c clusterService) change(ctx context.Context, ch core.Change) error {
	errs, err := c.s.node.Change(ctx, ch)
	if err != nil {
		return err
	}
	return errs[0]
}

// SetNode is part of apiserver.ClusterService.
func (c clusterService) SetNode(ctx context.Context, id core.NodeID, p api.Placement) (api.Node, error) {
	if err := c.change(ctx, core.Change{Kind: core.ChangeWeight, Node: id, Weight: p.Weight, Zone: p.Zone}); err != nil {
		return api.Node{}, err
	}
	return c.Node(ctx, id)
}

// NodeAction is part of apiserver.ClusterService.
func (c clusterService) NodeAction(ctx context.Context, id core.NodeID, a api.NodeAction) (api.Node, error) {
	n, err := c.Node(ctx, id)
	if err != nil {
		return n, err
	}
	var state core.NodeState
	switch a {
	case api.MaintenanceStart:
		state = core.NodeMaintenance
	case api.MaintenanceStop:
		state = core.NodeActive
		if n.State != core.NodeMaintenance && n.State != core.NodeActive {
			return n, api.Refused(fmt.Sprintf("node %s is %s, not in maintenance", id, n.State), "")
		}
	case api.Decommission:
		state = core.NodeDraining
	default:
		return n, api.NotBuilt("node action " + string(a))
	}
	if state != core.NodeActive && state != n.State {
		if err := c.canSpare(ctx, id, state); err != nil {
			return n, err
		}
	}
	if err := c.change(ctx, core.Change{Kind: core.ChangeNodeState, Node: id, State: string(state)}); err != nil {
		return n, err
	}
	return c.Node(ctx, id)
}

// canSpare refuses to take a node away that the cluster cannot do without.
func (c clusterService) canSpare(ctx context.Context, id core.NodeID, state core.NodeState) error {
	m, err := c.mapNow()
	if err != nil {
		return err
	}
	var statuses map[core.NodeID]engine.Status
	var asking sync.WaitGroup
	asking.Go(func() { statuses = c.s.node.Statuses(ctx) })
	locals := c.s.locals(ctx)
	asking.Wait()
	return spare{m: m, statuses: statuses, locals: locals, node: id}.check(state)
}

// Disks is part of apiserver.ClusterService.
func (c clusterService) Disks(ctx context.Context, node core.NodeID) ([]api.Disk, error) {
	m, err := c.mapNow()
	if err != nil {
		return nil, err
	}
	if node != "" && m.Node(node) == nil {
		return nil, fmt.Errorf("node %s: %w", node, core.ErrNotFound)
	}
	slots := map[core.DiskID]int{}
	for _, row := range m.Slots {
		for _, d := range row.Insync {
			slots[d]++
		}
	}
	locals := c.s.locals(ctx)
	out := []api.Disk{}
	for i := range m.Disks {
		d := &m.Disks[i]
		if node != "" && d.Node != node || replaced(m, d) {
			continue
		}
		a := api.Disk{
			ID: string(d.Node) + "/" + d.Name, Number: d.ID, Node: d.Node, Name: d.Name, UUID: d.UUID, State: d.State,
			Since: d.Since, Weight: d.Weight, Slots: slots[d.ID],
		}
		for _, l := range locals[d.Node].Disks {
			if l.UUID == d.UUID {
				a.Path, a.Capacity, a.Used, a.Errors, a.Problem = l.Path, l.Capacity, l.Used, l.Errors, l.Problem
				a.Objects, a.Shards = l.Objects, l.Shards
			}
		}
		for _, l := range locals[d.Node].Unusable {
			if l.Name == d.Name && a.Path == "" {
				a.Path, a.Problem = l.Path, l.Problem
			}
		}
		if a.Problem == "" && d.State != core.DiskOK {
			a.Problem = d.Reason
		}
		out = append(out, a)
	}
	return out, nil
}

// Disk is part of apiserver.ClusterService.
func (c clusterService) Disk(ctx context.Context, node core.NodeID, name string) (api.Disk, error) {
	all, err := c.Disks(ctx, node)
	if err != nil {
		return api.Disk{}, err
	}
	for _, d := range slices.Backward(all) { // of two with one name the newer
		if d.Name == name {
			return d, nil
		}
	}
	return api.Disk{}, fmt.Errorf("disk %s/%s: %w", node, name, core.ErrNotFound)
}

// SetDisk is part of apiserver.ClusterService.
func (c clusterService) SetDisk(ctx context.Context, node core.NodeID, name string, p api.Placement) (api.Disk, error) {
	d, err := c.Disk(ctx, node, name)
	if err == nil {
		err = c.change(ctx, core.Change{Kind: core.ChangeWeight, Disk: d.Number, Weight: p.Weight})
	}
	if err != nil {
		return d, err
	}
	return c.Disk(ctx, node, name)
}

// DiskAction is part of apiserver.ClusterService.
func (c clusterService) DiskAction(ctx context.Context, node core.NodeID, name string, a api.DiskAction) (api.Disk, error) {
	if a == api.FormatDisk || a == api.ForceFormatDisk || a == api.RebuildDisk || a == api.AttachDisk {
		if err := c.s.askDisk(ctx, node, a, name); err != nil {
			return api.Disk{}, err
		}
		return c.awaitDisk(ctx, node, name)
	}
	d, err := c.Disk(ctx, node, name)
	if err != nil {
		return d, err
	}
	switch a {
	case api.DetachDisk:
		err = c.change(ctx, core.Change{Kind: core.ChangeFail, Disk: d.Number})
		if err == nil {
			err = c.change(ctx, core.Change{Kind: core.ChangeDiskState, Disk: d.Number, State: string(core.DiskDetached)})
		}
	default:
		return d, api.NotBuilt("disk action " + string(a))
	}
	if err != nil {
		return d, err
	}
	return c.Disk(ctx, node, name)
}

// awaitDisk waits until the map has a disk that was just formatted.
func (c clusterService) awaitDisk(ctx context.Context, node core.NodeID, name string) (api.Disk, error) {
	for {
		_, changed := c.s.node.Maps()
		d, err := c.Disk(ctx, node, name)
		if err == nil && d.State == core.DiskOK {
			return d, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return d, fmt.Errorf("disk %s/%s is not in use yet: %w: %w", node, name, core.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// jobService is api/server's view of jobs.
type jobService struct{ s *server }

// JobKinds is part of apiserver.JobService.
func (j jobService) JobKinds(context.Context) ([]api.JobKind, error) {
	bucket := func(name string, optional bool) api.JobArg {
		return api.JobArg{Name: name, Type: "bucket", Optional: optional}
	}
	return []api.JobKind{
		{Kind: job.KindCopy, Summary: "copy a bucket to another", Args: []api.JobArg{bucket(api.ArgFrom, false), bucket(api.ArgTo, false)}},
		{Kind: job.KindETL, Summary: "transform a bucket into another", Args: []api.JobArg{{Name: argTransform, Type: "transform"}, bucket(api.ArgFrom, false), bucket(api.ArgTo, true)}},
		{Kind: job.KindEvict, Summary: "drop the copies of a remote bucket's objects", Args: []api.JobArg{bucket(api.ArgFrom, false)}},
		{Kind: job.KindLRU, Summary: "drop the least recently used copies of remote objects, where disks are above space.lowwm", Args: []api.JobArg{bucket(api.ArgFrom, true)}},
		{Kind: job.KindPrefetch, Summary: "bring what a remote bucket has into the cluster", Args: []api.JobArg{bucket(api.ArgFrom, false)}},
		{Kind: job.KindRebalance, Summary: "bring all data to where the map wants it", Args: []api.JobArg{bucket(api.ArgFrom, true)}},
		{Kind: job.KindResilver, Summary: "build missing data again", Args: []api.JobArg{bucket(api.ArgFrom, true)}},
		{Kind: job.KindRetry, Summary: "repeat what failed in a job", Args: []api.JobArg{{Name: "job", Type: "job"}}},
		{Kind: job.KindScrub, Summary: "read and verify all data, repair what is damaged", Args: []api.JobArg{bucket(api.ArgFrom, true)}},
	}, nil
}

// StartJob is part of apiserver.JobService.
func (j jobService) StartJob(ctx context.Context, in api.JobSpec) (api.Job, error) {
	if err := j.s.resolveJob(ctx, &in); err != nil {
		return api.Job{}, err
	}
	if in.Kind == job.KindRetry {
		spec, err := specOfJob(&in)
		if err != nil {
			return api.Job{}, err
		}
		x, err := j.s.jobs.Retry(ctx, in.Args["job"], spec)
		return jobOf(x), err
	}
	spec, err := j.prepareJob(ctx, &in)
	if err != nil {
		return api.Job{}, err
	}
	x, err := j.s.jobs.Start(ctx, spec)
	return jobOf(x), err
}

// specOfJob is what a request says, but for the arguments of its kind.
func specOfJob(in *api.JobSpec) (job.Spec, error) {
	spec := job.Spec{
		Kind: in.Kind, From: in.From, To: in.To, Token: in.ClientToken, Prefix: in.Prefix, List: in.List, Template: in.Template,
		Regex: in.Regex, Prepend: in.Prepend, Ext: in.Ext, DryRun: in.DryRun, Workers: in.NumWorkers,
		ObjectRate: in.RateLimit.Objects, ByteRate: in.RateLimit.Bytes, ContinueOnError: in.ContinueOnError,
		All: in.All, Latest: in.Latest, Sync: in.Sync, NoCache: in.NoCache, KeepMetadata: in.KeepMetadata,
	}
	if in.UnavailableTimeout != "" {
		d, err := time.ParseDuration(in.UnavailableTimeout)
		if err != nil {
			return spec, fmt.Errorf("unavailable_timeout: %w: %w", core.ErrInvalid, err)
		}
		spec.Unavailable = d
	}
	return spec, nil
}

// prepareJob makes a request, whose files are resolved, a specification, and takes the
// buckets that it names into use.
func (j jobService) prepareJob(ctx context.Context, in *api.JobSpec) (job.Spec, error) {
	spec, err := specOfJob(in)
	if err != nil {
		return spec, err
	}
	if in.Kind == job.KindETL {
		if err := j.prepareTransform(ctx, in, &spec); err != nil {
			return spec, err
		}
	}
	if len(in.Args) > 0 {
		return spec, fmt.Errorf("%s takes no further arguments: %w", in.Kind, core.ErrInvalid)
	}
	for _, uri := range []string{in.From, in.To} {
		if u, err := core.ParseURI(uri); uri != "" && err == nil && u.Bucket.System() {
			return spec, noSuchBucket(uri)
		}
	}
	return spec, j.prepareRemotes(ctx, in, &spec)
}

// previewObjects is how many objects a preview is of.
const previewObjects = 10

// PreviewJob is part of apiserver.JobService.
func (j jobService) PreviewJob(ctx context.Context, in api.JobSpec) (api.Preview, error) {
	if err := j.s.resolveJob(ctx, &in); err != nil {
		return api.Preview{}, err
	}
	spec, err := j.prepareJob(ctx, &in)
	if err != nil {
		return api.Preview{}, err
	}
	list, more, err := j.s.jobs.Preview(ctx, spec, previewObjects)
	out := api.Preview{More: more}
	for i := range list {
		out.Objects = append(out.Objects, previewOf(&list[i]))
	}
	return out, err
}

// previewOf is a preview of an object as it travels.
func previewOf(o *job.PreviewObject) api.PreviewObject {
	out := api.PreviewObject{Name: o.Key, Size: o.Size, Outputs: []api.PreviewOutput{}, More: o.More, Dropped: o.Dropped}
	for _, x := range o.Outputs {
		out.Outputs = append(out.Outputs, api.PreviewOutput{Name: x.Key, Size: x.Size, ContentType: x.ContentType})
	}
	if o.Why.Message != "" {
		e := api.JobError(o.Why)
		out.Error = &e
	}
	// The last character of a text may have been cut in two.
	text := o.Head
	for range utf8.UTFMax - 1 {
		if utf8.Valid(text) || len(text) == 0 {
			break
		}
		text = text[:len(text)-1]
	}
	if utf8.Valid(text) && !bytes.ContainsRune(text, 0) {
		out.Head = string(text)
	} else {
		out.HeadBase64 = o.Head
	}
	return out
}

// Jobs is part of apiserver.JobService.
func (j jobService) Jobs(ctx context.Context, f apiserver.JobFilter) ([]api.Job, error) {
	all, err := j.s.jobs.List(ctx, func(s *job.Spec, st *job.Status) bool {
		return (f.Kind == "" || s.Kind == f.Kind) && (f.Bucket == "" || s.From == f.Bucket || s.To == f.Bucket) && (f.All || !st.State.Ended())
	})
	out := make([]api.Job, 0, len(all))
	for _, x := range all {
		out = append(out, jobOf(x))
	}
	return out, err
}

// AwaitJob is part of apiserver.JobService.
func (j jobService) AwaitJob(ctx context.Context, id string) (api.Job, error) {
	x, err := j.s.jobs.Await(ctx, id)
	return jobOf(x), err
}

// StopJob is part of apiserver.JobService.
func (j jobService) StopJob(ctx context.Context, id string) (api.Job, error) {
	x, err := j.s.jobs.Stop(ctx, id)
	return jobOf(x), err
}

// JobErrors is part of apiserver.JobService.
func (j jobService) JobErrors(ctx context.Context, id, after string, limit int) (api.JobErrors, error) {
	list, more, err := j.s.jobs.Errors(ctx, id, after, limit)
	out := api.JobErrors{Errors: []api.JobError{}, More: more}
	for _, e := range list {
		out.Errors = append(out.Errors, api.JobError(e))
	}
	return out, err
}

// jobOf is a job as it travels.
func jobOf(x job.Job) api.Job {
	b := x.Status.Books
	out := api.Job{
		ID: x.Spec.ID, Kind: x.Spec.Kind, State: api.JobState(x.Status.State), From: x.Spec.From, To: x.Spec.To,
		Done: api.Amount(b.Done), Skipped: api.Amount(b.Skipped), Failed: api.Amount(b.Failed), Dropped: api.Amount(b.Dropped),
		Outputs: api.Amount(b.Outputs), Started: x.Status.Started, Ended: x.Status.Ended,
		Rate: api.Rate(x.Rate), DryRun: x.Spec.DryRun, RetryOf: x.Spec.RetryOf, WaitingFor: x.Status.Waiting, Listers: x.Listers, Message: x.Status.Message,
	}
	if x.Status.Planned != nil {
		p := api.Amount(*x.Status.Planned)
		out.Planned = &p
	}
	if found := api.Amount(b.Planned); x.Status.Planned == nil && found != (api.Amount{}) {
		out.Found = &found
	}
	if x.Cloud != (job.Cloud{}) {
		cloud := api.CloudUse(x.Cloud)
		out.Cloud = &cloud
	}
	if !x.ETA.IsZero() {
		eta := x.ETA
		out.ETA = &eta
	}
	return out
}

// performanceService is api/server's view of the nodes' speed.
type performanceService struct{ s *server }

// Performance is part of apiserver.PerformanceService.
func (p performanceService) Performance(ctx context.Context) (api.Performance, error) {
	m := p.s.node.Map()
	if m == nil {
		return api.Performance{}, fmt.Errorf("this node knows no map in effect yet: %w", core.ErrUnavailable)
	}
	// A node that was just struck is not waited for: others are to be seen.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	locals := p.s.locals(ctx)
	out := api.Performance{Time: p.s.clock.Now(), Seconds: window.Seconds()}
	var events [][]api.Event
	for i := range m.Nodes {
		id := m.Nodes[i].ID
		if l, ok := locals[id]; ok {
			out.Nodes = append(out.Nodes, l.Perf)
			events = append(events, l.Events)
		} else if m.Nodes[i].State != core.NodeDecommissioned {
			out.Missing = append(out.Missing, id)
		}
	}
	out.Total = totalPerformance(out.Nodes)
	out.Events = mergeEvents(events...)
	return out, nil
}

// countDisks counts what is on disks that were not closed in good order.
func (s *server) countDisks(ctx context.Context) error {
	for _, d := range s.openDisks() {
		st, err := d.disk.Stats(ctx)
		if err == nil && !st.Counted {
			err = d.disk.Count(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("disk could not be counted; what is shown of it is too little", "disk", d.name, "err", err)
		}
	}
	<-ctx.Done()
	return nil
}
