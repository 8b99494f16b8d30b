package nodeserver

import (
	"slices"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// TestStrikes: what happens to nodes and disks is remembered, counted, and told
// once by however many nodes saw it.
func TestStrikes(t *testing.T) {
	c := systemClock{}
	first, second := newStrikes(c), newStrikes(c)
	maps := []*core.Map{threeNodes(t)}
	for _, ch := range []core.Change{
		{Kind: core.ChangeFail, Node: "n3"},
		{Kind: core.ChangeFail, Disk: 1, Reason: "input/output error"},
		{Kind: core.ChangeBoot, Node: "n3", Boot: 2},
	} {
		maps = append(maps, after(t, maps[len(maps)-1], ch))
	}
	for _, m := range maps {
		first.see(m)
	}
	second.see(maps[0])
	second.see(maps[3]) // it has missed two
	var texts []string
	for _, e := range first.list() {
		texts = append(texts, e.Text)
	}
	for _, want := range []string{"n3 down", "n1/d1 failed: input/output error", "n3 started", "n3 active"} {
		if !slices.Contains(texts, want) {
			t.Errorf("%q is not among %q", want, texts)
		}
	}
	counts := first.totals()
	for kind, want := range map[string]int64{"node_down": 1, "disk_failed": 1, "node_started": 1, "node_active": 1} {
		if counts[kind] != want {
			t.Errorf("%s: counted %d times, want %d", kind, counts[kind], want)
		}
	}
	owned := 0
	for s := range maps[0].Slots {
		if maps[0].OwnerNode(core.SlotID(s)) == "n3" {
			owned++
		}
	}
	var gone int64
	for _, e := range slotEvents(maps[0], maps[1]) {
		if e.what == eventTakenOver && e.data.(slotEvent).Was == "n3" {
			gone++
		}
	}
	if gone == 0 || int(gone) > owned || counts[strikeTakenOver] < gone {
		t.Errorf("%d of %d slots of n3 were taken over, %d are counted in all", gone, owned, counts[strikeTakenOver])
	}
	all := mergeEvents(first.list(), second.list())
	seen := map[string]int{}
	for _, e := range all {
		seen[e.Text]++
	}
	if seen["n3 down"] != 1 || seen["n1/d1 failed: input/output error"] != 1 || seen["n3 started"] != 1 {
		t.Errorf("merged: %v", seen)
	}
	// The same again, later, is another event.
	again := all[0]
	again.Time, again.Epoch = again.Time.Add(time.Minute), again.Epoch+40
	if got := len(mergeEvents(all, []api.Event{again})); got != len(all)+1 {
		t.Errorf("%d events, want %d", got, len(all)+1)
	}
}
