package sim

import (
	"fmt"
	"time"

	"github.com/shoalstore/shoal/core"
)

const clientCount = 4

// client asks one thing after the other.
type client struct {
	w    *world
	no   int
	left int
	done bool
}

// keys are few, so that operations meet.
func (w *world) keys() []string {
	var out []string
	for i := range 5 {
		out = append(out, fmt.Sprintf("key%d", i))
	}
	return out
}

func (w *world) startClients() {
	for i := range clientCount {
		c := &client{w: w, no: i, left: w.opt.Ops/clientCount + 1}
		w.clients = append(w.clients, c)
		w.after(w.between(time.Second, 2*time.Second), c.next)
	}
}

func (w *world) clientsDone() bool {
	for _, c := range w.clients {
		if !c.done {
			return false
		}
	}
	return true
}

// next begins the client's next operation.
func (c *client) next() {
	w := c.w
	if c.left == 0 {
		c.done = true
		return
	}
	c.left--
	keys := w.keys()
	if w.chance(0.08) {
		c.list(keys)
		return
	}
	q := request{key: keys[w.rng.IntN(len(keys))]}
	switch p := w.rng.Float64(); {
	case p < 0.40:
		q.kind = opGet
	case p < 0.75:
		q.kind = opPut
	case p < 0.87:
		q.kind = opDelete
	default:
		q.kind = opCreate
	}
	if q.kind != opGet {
		w.nextVal++
		q.value = w.nextVal
		for i := range q.id {
			q.id[i] = byte(w.rng.Uint32())
		}
	}
	op := w.history.begin(c.no, q, w.now)
	if (q.kind == opPut || q.kind == opCreate) && w.chance(0.4) {
		w.putShards(q.key, func(places []place) {
			q.places = places
			c.carryOut(op, q)
		})
		return
	}
	c.carryOut(op, q)
}

// carryOut asks until there is an answer. The shards of a write that was surely
// refused go.
func (c *client) carryOut(op *operation, q request) {
	w := c.w
	c.ask(q, func(r reply) {
		w.history.end(op, r, w.now)
		w.report.Ops++
		if q.kind == opCreate && !r.took {
			w.deleteShards(0, q.places)
		}
		c.pause()
	}, func() {
		w.report.Open++
		c.pause()
	})
}

func (c *client) pause() {
	d := c.w.between(0, 150*time.Millisecond)
	if c.w.chance(0.1) {
		d = c.w.between(200*time.Millisecond, 2*time.Second)
	}
	c.w.after(d, c.next)
}

// ask sends a request to the owner, as some node knows it, and again under the
// same id until there is an answer or patience ends.
func (c *client) ask(q request, done func(reply), open func()) {
	w := c.w
	deadline := w.now + w.between(6*time.Second, 25*time.Second)
	ended := false
	attempt := 0
	var try func()
	try = func() {
		if ended {
			return
		}
		if w.now > deadline {
			ended = true
			if q.kind == opGet {
				// A read without an answer is no part of the history.
				w.history.forget(c.no, q)
			}
			open()
			return
		}
		if owner := w.ownerBy(q.key); owner != nil && !w.chance(w.loss) {
			life, sent := owner.life, q
			q.again = true
			attempt++
			mine := attempt
			w.after(w.between(100*time.Microsecond, 10*time.Millisecond), func() {
				owner.when(life, func() {
					owner.serve(sent, func(r reply) {
						if r.err || w.chance(w.loss) {
							return
						}
						w.after(w.between(100*time.Microsecond, 10*time.Millisecond), func() {
							// Only the latest attempt's answer counts.
							if !ended && mine == attempt {
								ended = true
								done(r)
							}
						})
					})
				})
			})
		}
		w.after(w.between(300*time.Millisecond, 1500*time.Millisecond), try)
	}
	try()
}

// ownerBy returns the owner of a key's slot by the map of a random node.
func (w *world) ownerBy(key string) *node {
	nd := w.nodes[w.order[w.rng.IntN(len(w.order))]]
	if !nd.up || nd.paused || nd.node.Map() == nil {
		return nil
	}
	owner := w.nodes[nd.node.Map().OwnerNode(slotOf(key))]
	if owner == nil || !owner.up {
		return nil
	}
	return owner
}

// list asks all nodes for what they hold until every slot was answered for, and
// enters the result as a read of every key.
func (c *client) list(keys []string) {
	w := c.w
	began := w.now
	deadline := w.now + w.between(6*time.Second, 25*time.Second)
	have := map[core.SlotID]bool{}
	values := map[string]int{}
	ended := false
	var try func()
	try = func() {
		if ended {
			return
		}
		if w.now > deadline {
			ended = true
			c.pause()
			return
		}
		for _, id := range w.order {
			nd := w.nodes[id]
			life := nd.life
			w.after(w.between(100*time.Microsecond, 10*time.Millisecond), func() {
				nd.when(life, func() {
					nd.list(keys, func(held map[core.SlotID]bool, vs map[string]int) {
						w.after(w.between(100*time.Microsecond, 10*time.Millisecond), func() {
							if ended {
								return
							}
							for _, k := range keys {
								if s := slotOf(k); held[s] && !have[s] {
									values[k] = vs[k]
								}
							}
							for s, ok := range held {
								have[s] = have[s] || ok
							}
							for s := range core.SlotID(slots) {
								if !have[s] {
									return
								}
							}
							ended = true
							for _, k := range keys {
								w.history.read(c.no, k, values[k], began, w.now)
							}
							w.report.Ops++
							c.pause()
						})
					})
				})
			})
		}
		w.after(w.between(500*time.Millisecond, 1500*time.Millisecond), try)
	}
	try()
}
