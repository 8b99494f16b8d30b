package job

import (
	"encoding/json"
	"testing"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/bus/membus"
	"github.com/shoalstore/shoal/core/engine"
)

// What is older comes late: who wrote a status hears of it after the watch has brought
// what others made of it, and a bus may forget.
func TestStatusesInOrder(t *testing.T) {
	kv := membus.New().Client().Jobs()
	m := &Manager{o: Options{KV: kv, Node: new(engine.Node)}, jobs: map[string]*entry{}, changed: make(chan struct{})}
	see := func(what string, v any, rev bus.Revision) {
		t.Helper()
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.see(bus.Entry{Key: key("id", what), Value: b, Revision: rev}); err != nil {
			t.Fatal(err)
		}
	}
	put := func(st Status) bus.Revision {
		t.Helper()
		b, err := json.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		rev, err := kv.Create(t.Context(), key("id", "status"), b)
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	is := func(state State, change uint64) {
		t.Helper()
		if _, st, _, _, _ := m.snapshot("id"); st.State != state || st.Change != change {
			t.Errorf("got %s after %d changes, want %s after %d", st.State, st.Change, state, change)
		}
	}
	rev := put(Status{State: Pending})
	see("spec", Spec{ID: "id"}, 1)
	see("status", Status{State: Running, Change: 2}, rev+2)
	see("status", Status{State: Pending}, rev)
	is(Running, 2)
	see("status", Status{State: Planning, Change: 1}, rev+3) // a bus that gave a number twice
	is(Running, 2)

	// The bus has forgotten the changes; it is brought up to what is known.
	err := m.update(t.Context(), "id", func(s *Status) bool { s.State = Verifying; return true })
	if err != nil {
		t.Fatal(err)
	}
	is(Verifying, 3)
	e, err := kv.Get(t.Context(), key("id", "status"))
	var has Status
	if err != nil || json.Unmarshal(e.Value, &has) != nil || has.State != Verifying || has.Change != 3 {
		t.Errorf("the bus has %s, %v", e.Value, err)
	}
}
