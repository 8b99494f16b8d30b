package nodeserver

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/bus/natsbus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/job"
	"github.com/shoalstore/shoal/placement"
)

// threeNodes is a map of n1 to n3 with a disk each and a voter.
func threeNodes(t *testing.T) *core.Map {
	t.Helper()
	var nodes []core.Node
	var disks []core.Disk
	for i := range 3 {
		id := core.NodeID(fmt.Sprintf("n%d", i+1))
		nodes = append(nodes, core.Node{ID: id, Boot: 1})
		disks = append(disks, core.Disk{UUID: "u" + string(id), Node: id, Name: "d1", Weight: 1})
	}
	m, err := placement.Initial("c1", 12, 2, nodes, disks, []core.Voter{{Node: "n1", Key: "k"}}, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func after(t *testing.T, m *core.Map, c ...core.Change) *core.Map {
	t.Helper()
	next, errs := placement.Apply(m, time.Unix(2, 0), c)
	for i, err := range errs {
		if err != nil {
			t.Fatalf("change %s: %v", c[i].Kind, err)
		}
	}
	return next
}

// types lists kind, subject and name of events; those of slots are counted.
func types(events []happened) (out []string, slots map[string]int) {
	slots = map[string]int{}
	for _, e := range events {
		if e.kind == bus.EventSlot {
			slots[e.what]++
		} else {
			out = append(out, fmt.Sprintf("%s %s %s", e.kind, e.subject, e.what))
		}
	}
	return out, slots
}

func TestMapEvents(t *testing.T) {
	t.Parallel()
	m := threeNodes(t)
	owned := map[core.NodeID]int{}
	only := map[core.NodeID]int{} // slots on n2 and n3 only
	for s := range m.Slots {
		owned[m.OwnerNode(core.SlotID(s))]++
		if !slices.ContainsFunc(m.Slots[s].Insync, func(d core.DiskID) bool { return m.NodeOf(d) == "n1" }) {
			only["n2,n3"]++
		}
	}
	bucket := &core.Bucket{Name: core.BucketName{Provider: core.Shoal, Name: "photos"}, Alias: "photos", State: core.BucketOK, Policy: core.Policy{Scheme: core.Mirror(2), Domain: core.DomainNode, ETag: "md5"}}
	withBucket := after(t, m, core.Change{Kind: core.ChangeAddBucket, Bucket: bucket})
	row := withBucket.Buckets[0]
	other := row
	other.Policy.Inline = 9
	deleting := after(t, withBucket, core.Change{Kind: core.ChangeSetBucket, Bucket: &row, State: string(core.BucketDeleting)})
	n3down := after(t, m, core.Change{Kind: core.ChangeFail, Node: "n3"})
	n2down := after(t, n3down, core.Change{Kind: core.ChangeFail, Node: "n2"})
	back := core.Change{Kind: core.ChangeBoot, Node: "n2", Boot: 5}
	lost := 0 // slots that n2 alone had in the end
	for s := range n3down.Slots {
		if !slices.ContainsFunc(n3down.Slots[s].Insync, func(d core.DiskID) bool { return n3down.NodeOf(d) == "n1" }) {
			lost++
		}
	}
	if lost != only["n2,n3"] || lost == 0 || owned["n3"] == 0 {
		t.Fatalf("%d slots are on n2 alone, %d were on n2 and n3, n3 owned %d: the case shows nothing", lost, only["n2,n3"], owned["n3"])
	}
	takenFrom2 := 0
	for s := range n3down.Slots {
		if n3down.OwnerNode(core.SlotID(s)) == "n2" && n2down.OwnerNode(core.SlotID(s)) == "n1" {
			takenFrom2++
		}
	}
	for name, c := range map[string]struct {
		was, made *core.Map
		want      []string
		slots     map[string]int
	}{
		"nothing":         {m, after(t, m, core.Change{Kind: core.ChangeReplicas, Count: 3}), nil, nil},
		"bucket created":  {m, withBucket, []string{"bucket shoal://photos created"}, nil},
		"bucket changed":  {withBucket, after(t, withBucket, core.Change{Kind: core.ChangeSetBucket, Bucket: &other}), []string{"bucket shoal://photos changed"}, nil},
		"bucket deleting": {withBucket, deleting, []string{"bucket shoal://photos deleting"}, nil},
		"bucket deleted": {
			deleting, after(t, deleting, core.Change{Kind: core.ChangeRemoveBucket, Bucket: &row}), []string{"bucket shoal://photos deleted"}, nil,
		},
		"node down":       {m, n3down, []string{"node n3 down"}, map[string]int{eventTakenOver: owned["n3"]}},
		"second one down": {n3down, n2down, []string{"node n2 down"}, map[string]int{eventUnavailable: lost, eventTakenOver: takenFrom2}},
		"node back":       {n2down, after(t, n2down, back), []string{"node n2 started", "node n2 active"}, map[string]int{eventAvailable: lost}},
		"node started":    {m, after(t, m, back), []string{"node n2 started"}, nil},
		"maintenance": {
			m, after(t, m, core.Change{Kind: core.ChangeNodeState, Node: "n1", State: string(core.NodeMaintenance)}), []string{"node n1 maintenance"}, nil,
		},
		"disk failed":   {m, after(t, m, core.Change{Kind: core.ChangeFail, Disk: 3}), []string{"disk n3/d1 failed"}, map[string]int{eventTakenOver: owned["n3"]}},
		"disk detached": {n3down, after(t, n3down, core.Change{Kind: core.ChangeDiskState, Disk: 3, State: string(core.DiskDetached)}), []string{"disk n3/d1 detached"}, nil},
		"disk added":    {m, after(t, m, core.Change{Kind: core.ChangeAddDisk, Node: "n1", Disks: []core.Disk{{UUID: "x", Name: "d2"}}}), []string{"disk n1/d2 added"}, nil},
	} {
		got, slots := types(mapEvents(c.was, c.made))
		if !slices.Equal(got, c.want) || len(slots) != len(c.slots) {
			t.Errorf("%s: got %q and slots %v, want %q and %v", name, got, slots, c.want, c.slots)
		}
		for what, n := range c.slots {
			if slots[what] != n {
				t.Errorf("%s: got %d slots %s, want %d", name, slots[what], what, n)
			}
		}
	}
}

// TestPublish has events go through a NATS server: in order, and those of a map
// only once it is in effect.
func TestPublish(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	s, err := natsbus.Start(ctx, natsbus.ServerOptions{Name: "n1", Cluster: "c1", Generation: 1, Dir: t.TempDir(), ClientAddr: "127.0.0.1:0", Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	connect := func() *natsbus.Client {
		k, err := natsbus.Connect(natsbus.ClientOptions{URLs: []string{natsbus.ClientURL(s.ClientAddr(), false)}, Generation: 1, Cluster: "c1", Name: "c", Logger: log})
		if err == nil {
			t.Cleanup(k.Close)
			err = k.WaitConnected(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	seq, err := connect().Subscribe(ctx, "shoal.event.>")
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan bus.Event, 100)
	go func() {
		for e := range seq {
			events <- e
		}
	}()
	m := threeNodes(t)
	made := after(t, m, core.Change{Kind: core.ChangeFail, Node: "n3"})
	inEffect, changed := m, make(chan struct{})
	asked := make(chan struct{}, 10)
	state := make(chan func(), 1) // changes what maps returns
	state <- func() {}
	p := &publisher{
		source: "/c1/nodes/n1", bus: connect(), clock: systemClock{}, log: log, ready: make(chan struct{}, 1),
		maps: func() (*core.Map, <-chan struct{}) {
			f := <-state
			defer func() { state <- f }()
			asked <- struct{}{}
			return inEffect, changed
		},
	}
	done := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	go func() { done <- p.run(running) }()
	next := func() bus.Event {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-ctx.Done():
			t.Fatal("no event")
			return bus.Event{}
		}
	}
	j := job.Job{Spec: job.Spec{ID: "copy-1", Kind: job.KindCopy}, Status: job.Status{State: job.Running}}
	p.onJob(j, job.Planning)
	e := next()
	var data map[string]any
	if err := json.Unmarshal(e.Data, &data); err != nil || e.Topic() != "shoal.event.job.copy-1.running" || e.Source != "/c1/nodes/n1" || data["was"] != "planning" || data["state"] != "running" {
		t.Errorf("job: got %s from %s with %s, %v", e.Topic(), e.Source, e.Data, err)
	}
	p.onMap(m, made)
	<-asked // it has seen that the map is not in effect yet
	j.Status.State = job.Done
	p.onJob(j, job.Running)
	select {
	case e := <-events:
		t.Errorf("%s is published before the map is in effect", e.Topic())
	default:
	}
	f := <-state
	inEffect = made
	close(changed)
	state <- f
	if e := next(); e.Topic() != "shoal.event.node.n3.down" || e.ID == "" || e.Time.IsZero() {
		t.Errorf("got %+v, want the event of the node, with an id and a time", e)
	}
	for e = next(); e.Kind == bus.EventSlot; e = next() {
	}
	if e.Topic() != "shoal.event.job.copy-1.done" {
		t.Errorf("got %s behind the events of the map, want that of the job", e.Topic())
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// A flood is bounded.
	for range eventsKept + 5 {
		p.onJob(j, job.Running)
	}
	if len(p.queue) != eventsKept || p.lost != 5 {
		t.Errorf("kept %d events, lost %d, want %d and 5", len(p.queue), p.lost, eventsKept)
	}
}
