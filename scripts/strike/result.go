package main

import "errors"

// result is what a script has found, as its last line tells it.
type result struct {
	Script string `json:"script"`
	// Rounds are those that count; Objects and Bytes what went through them.
	Rounds  int   `json:"rounds"`
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	// Lost are objects that are gone or cannot be read, Wrong those that hold
	// or are called something else, Duplicated those that are there twice and
	// outputs that a job wrote twice by its own books.
	Lost       int64      `json:"lost"`
	Wrong      int64      `json:"wrong"`
	Duplicated int64      `json:"duplicated"`
	Throughput throughput `json:"throughput"`
	Dip        dip        `json:"dip"`
	Seed       uint64     `json:"seed"`
	// Uploads are there with remote ends.
	Uploads *uploadBooks `json:"uploads,omitempty"`
	// Strikes are the rounds by what the node did that was struck, and by what it was
	// chosen for.
	Strikes map[part]struckBooks `json:"strikes,omitempty"`

	courses []measured
}

// throughput is in bytes per second, the mean of the rounds.
type throughput struct {
	Before float64 `json:"before"`
	During float64 `json:"during"`
	After  float64 `json:"after"`
}

// dip is how far throughput fell after a strike, 0 to 1, and for how long; of
// the worst round.
type dip struct {
	Depth   float64 `json:"depth"`
	Seconds float64 `json:"seconds"`
}

// measured is one round's.
type measured struct {
	throughput
	dip
}

// add counts the differences in an error.
func (r *result) add(err error) {
	if d, ok := errors.AsType[*differenceError](err); ok {
		r.Lost += d.lost
		r.Wrong += d.wrong
		r.Duplicated += d.duplicated
	}
}

// total is the result with the rounds' measurements put together.
func (r *result) total() *result {
	for _, m := range r.courses {
		n := float64(len(r.courses))
		r.Throughput.Before += m.Before / n
		r.Throughput.During += m.During / n
		r.Throughput.After += m.After / n
		r.Dip.Depth = max(r.Dip.Depth, m.Depth)
		r.Dip.Seconds = max(r.Dip.Seconds, m.Seconds)
	}
	r.courses = nil
	return r
}
