package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// TestDiskWatch tells disks that have failed from those that have not.
func TestDiskWatch(t *testing.T) {
	const looks = int(time.Minute / healthEvery)
	second := int(time.Second / healthEvery)
	type vitals = map[core.DiskID]core.Vitals
	// hang is an operation of a disk that runs from some look on.
	hang := func(v *core.Vitals, look, from int) {
		if look >= from {
			v.Running = append(v.Running, 7)
		}
	}
	for _, c := range []struct {
		name string
		tell func(look int) vitals // of disks 1 and 2
		want string                // of disk 1; "" is well
		soon int                   // looks within which it is noticed
	}{
		{"all is well", func(look int) vitals {
			return vitals{1: {Ops: int64(look), Busy: time.Duration(look) * time.Millisecond, Running: []uint64{uint64(look) + 1}}, 2: {}}
		}, "", 0},
		{"a failed write", func(look int) vitals {
			v := vitals{1: {}, 2: {}}
			if look > 9 {
				v[1] = core.Vitals{Err: errors.New("input/output error")}
			}
			return v
		}, "input/output error", 11},
		{"a full disk", func(int) vitals { return vitals{1: {Err: fmt.Errorf("full: %w", core.ErrNoSpace)}, 2: {}} }, "", 0},
		{"damaged rows", func(int) vitals { return vitals{1: {Damaged: errors.New("checksum")}, 2: {}} }, "shoal disk rebuild", 1},
		{"a few bad blocks", func(look int) vitals {
			return vitals{1: {ReadErrors: int64(min(look, 5)), ReadError: errors.New("EIO")}, 2: {}}
		}, "", 0},
		{"read errors, but seldom", func(look int) vitals {
			return vitals{1: {ReadErrors: int64(look / (10 * second)), ReadError: errors.New("EIO")}, 2: {}}
		}, "", 0},
		{"many read errors", func(look int) vitals {
			return vitals{1: {ReadErrors: int64(look / 2), ReadError: errors.New("EIO")}, 2: {}}
		}, "reads failed within 1m0s, the last one with: EIO", 6 * second},
		{"a stall, and another goes on", func(look int) vitals {
			v := core.Vitals{}
			hang(&v, look, 10)
			return vitals{1: v, 2: {Running: []uint64{uint64(look) + 100}}}
		}, "an operation has not ended for 8s", 10 + 9*second},
		{"a pause", func(look int) vitals {
			v := core.Vitals{}
			if look%(7*second) > second {
				hang(&v, look, 10)
			}
			return vitals{1: v, 2: {}}
		}, "", 0},
		{"a stall of both", func(look int) vitals {
			v, w := core.Vitals{}, core.Vitals{}
			hang(&v, look, 10)
			hang(&w, look, 12)
			if look > 25*second {
				v, w = core.Vitals{}, core.Vitals{}
			}
			return vitals{1: v, 2: w}
		}, "", 0},
		{"a stall of both for long", func(look int) vitals {
			v, w := core.Vitals{}, core.Vitals{}
			hang(&v, look, 10)
			hang(&w, look, 12)
			return vitals{1: v, 2: w}
		}, "an operation has not ended for 32s", 10 + 33*second},
		{"slow, and so is the other", func(look int) vitals {
			v := core.Vitals{Ops: int64(look), Busy: 2 * time.Duration(look) * time.Second}
			return vitals{1: v, 2: v}
		}, "", 0},
		{"slow, and the other is not", func(look int) vitals {
			return vitals{1: {Ops: int64(look), Busy: 2 * time.Duration(look) * time.Second}, 2: {Ops: int64(look), Busy: time.Duration(look) * time.Millisecond}}
		}, "its writes take 2s, those of the node's other disks 1ms", looks + 1},
		{"slow for once", func(look int) vitals {
			busy := 2 * time.Duration(min(look, looks/3)) * time.Second
			return vitals{1: {Ops: int64(look), Busy: busy}, 2: {Ops: int64(look), Busy: time.Duration(look) * time.Millisecond}}
		}, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newDiskWatch(defaultStall)
			for look := range 2 * looks {
				failed := w.look(c.tell(look))
				if err := failed[2]; err != nil && failed[1] == nil {
					t.Fatalf("look %d: the other disk: %v", look, err)
				}
				if err := failed[1]; err != nil {
					if c.want == "" || !strings.Contains(err.Error(), c.want) || !errors.Is(err, core.ErrDiskFailed) {
						t.Fatalf("look %d: got %v, want %q", look, err, c.want)
					}
					if look > c.soon {
						t.Fatalf("it took %d looks, want %d at most", look, c.soon)
					}
					return
				}
			}
			if c.want != "" {
				t.Errorf("nothing was noticed, want %q", c.want)
			}
		})
	}
}
