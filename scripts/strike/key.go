package main

import (
	"fmt"
	"slices"
	"sync"
)

// value is what a key may hold: the ETag that names it, which no other value
// has, and the size. The zero value is no object.
type value struct {
	etag string
	size int64
}

func (v value) String() string {
	if v == (value{}) {
		return "nothing"
	}
	return fmt.Sprintf("%d bytes of ETag %s", v.size, v.etag)
}

// key is what is known of a key. One worker writes it, one call after the other;
// others may read and list it meanwhile.
//
// A write without an answer is open: it may have taken effect, may do so at any
// later time, once, or never. So after a write that was acknowledged the key
// holds that value or an open one.
type key struct {
	bucket *chaosBucket
	name   string

	mu      sync.Mutex
	allowed []value // what it may hold now; the open ones are among them
	open    []value // writes and deletions that may still take effect
	begun   int     // writes and deletions, ever
	deletes int     // deletions, ever
	pending bool    // one of them is under way
	atRisk  bool    // its only copy may have been destroyed on purpose
}

// begin notes a write of v that is about to be sent; a deletion writes nothing.
func (k *key) begin(v value) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begun++
	k.pending = true
	if v == (value{}) {
		k.deletes++
	}
}

// outcome is what came of a write.
type outcome int

const (
	acknowledged outcome = iota
	unknown              // no answer, or one that does not say
	notSent
)

// end notes what came of it.
func (k *key) end(v value, o outcome) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending = false
	switch o {
	case acknowledged:
		k.allowed = append([]value{v}, k.open...)
	case unknown:
		k.open = append(k.open, v)
		k.allowed = append(k.allowed, v)
	case notSent:
	}
}

// observe notes what the writer has read, or says that it cannot be.
func (k *key) observe(v value) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := within(v, k.allowed); err != nil {
		return fmt.Errorf("%s/%s holds %s: %w", k.bucket.name, k.name, v, err)
	}
	if v != (value{}) { // of deletions nobody knows which it was
		k.open = slices.DeleteFunc(k.open, func(o value) bool { return o == v })
	}
	k.allowed = append([]value{v}, k.open...)
	return nil
}

func within(v value, allowed []value) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	return fmt.Errorf("want one of %v", allowed)
}

// openCalls is how many writes may still take effect.
func (k *key) openCalls() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.open)
}

// exposed says whether the key may be unreadable because of what was destroyed.
func (k *key) exposed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.atRisk
}

// expose says that the only copy may be gone, or that there is a new one.
func (k *key) expose(atRisk bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.atRisk = atRisk
}

// snapshot is a key as it was before a listing began.
type snapshot struct {
	allowed        []value
	begun, deletes int
	pending        bool
}

func (k *key) snapshot() snapshot {
	k.mu.Lock()
	defer k.mu.Unlock()
	return snapshot{slices.Clone(k.allowed), k.begun, k.deletes, k.pending}
}

// listed says what is wrong with the key's place in a listing that began after
// the snapshot and has ended. A key that nobody touched meanwhile is there as it
// was; one that was only written anew is there.
func (k *key) listed(before snapshot, v value) error {
	after := k.snapshot()
	switch {
	case !before.pending && after.begun == before.begun:
		if err := within(v, before.allowed); err != nil {
			return fmt.Errorf("%s lists %s with %s: %w", k.bucket.name, k.name, v, err)
		}
	case v == (value{}) && !before.pending && after.deletes == before.deletes && !slices.Contains(before.allowed, value{}):
		return fmt.Errorf("%s does not list %s, which was there all the time", k.bucket.name, k.name)
	}
	return nil
}
