// Package kofn asks several for an answer of which some are enough, and does
// not wait for those that fail or are slow.
//
// [First] is the common case: of the candidates, in their order of preference,
// k must succeed. A failure brings in the next candidate at once; a delay, the
// hedge, brings in one for each that is late. The losers are cancelled.
//
//	out, ok, err := kofn.First(ctx, &wg, clock, kofn.Plan{K: 4, Order: shards, Patience: p},
//		func(ctx context.Context, i int) error { return open(ctx, i) })
//
// [Race] is what it is made of, for those who need another rule than "any k".
//
// A call that ignores its cancelled context cannot be stopped, only left
// behind. So every goroutine is counted in a [sync.WaitGroup] of the caller's,
// who waits for it when nobody is held up by that: at shutdown.
package kofn

import (
	"context"
	"slices"
	"sync"

	"github.com/shoalstore/shoal/core"
)

// Plan says whom [First] asks.
type Plan struct {
	// K is how many must succeed.
	K int
	// Order lists the candidates, the best first.
	Order []int
	Patience
}

// Outcome is what came of [First].
type Outcome struct {
	// Won are the candidates that succeeded, in the order in which they did.
	Won []int
	// Late are those that had not answered in the time of the hedge, nor
	// when First returned.
	Late []int
	// Failed are those that failed, in the order of time.
	Failed []Result
	// Silent are those that were given up because no answer came.
	Silent []int
}

// First calls f for the candidates until K have succeeded, and returns true.
// It returns false when they cannot any more, and an error only if ctx ended.
// The ctx of each call ends when First returns; the losers are not waited for.
func First(ctx context.Context, wg *sync.WaitGroup, clock core.Clock, p Plan, f func(ctx context.Context, i int) error) (Outcome, bool, error) {
	callCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	race := NewRace(wg, clock, p.Patience, len(p.Order))
	defer race.Close()

	var out Outcome
	var busy []int // asked, neither answered nor late
	rest := p.Order
	for len(out.Won) < p.K {
		for n := p.K - len(out.Won) - len(busy); n > 0 && len(rest) > 0; n-- {
			i := rest[0]
			rest = rest[1:]
			busy = append(busy, i)
			race.Go(callCtx, i, func(ctx context.Context) error { return f(ctx, i) })
		}
		if len(out.Won)+len(busy)+len(out.Late) < p.K {
			return out, false, ctx.Err() // it may be what failed the last one
		}
		event, res, err := race.Next(ctx)
		if err != nil {
			return out, false, err
		}
		switch event {
		case Late:
			out.Late = append(out.Late, busy...)
			busy = nil
		case Silent:
			out.Silent = append(append(out.Silent, out.Late...), busy...)
			out.Late, busy = nil, nil
		case Answer:
			if slices.Contains(out.Silent, res.Index) {
				continue
			}
			answered := func(i int) bool { return i == res.Index }
			busy = slices.DeleteFunc(busy, answered)
			out.Late = slices.DeleteFunc(out.Late, answered)
			if res.Err != nil {
				out.Failed = append(out.Failed, res)
			} else {
				out.Won = append(out.Won, res.Index)
			}
		}
	}
	return out, true, nil
}
