package job

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// keyRange is a run of a listing's keys: those above After, up to and including
// Last. The ranges of a job are rows of one slot, and tile the key space: each
// begins where the one before it ends, the first with "", the last has no end. So
// After names a range; it never changes.
type keyRange struct {
	After string
	// Last is the end, "" for none.
	Last string
	// Pos is up to where all keys are through, and counted in Books.
	Pos string
	// Done says that this is so up to the end.
	Done bool
	// Holder lists the range, in its start of that number; "" is nobody.
	Holder core.NodeID
	Boot   uint64
	Lane   int // a node lists several ranges
	// Pages is the number of pages that were listed up to Pos, and Keys that of
	// the keys in them.
	Pages  int64
	Keys   int64
	Books  Books
	Errors []Error
	// Left is about how many keys there are behind Pos, or were when somebody
	// last looked. Bound, if not "", is a key behind which a probe found nothing.
	// Edge, if not "", is a key up to about which keys go on. Nothing rests on these
	// being right.
	Left  int64
	Bound string
	Edge  string
}

// rangeRecord is the stored form. Keys are bytes: they need not be valid text.
type rangeRecord struct {
	Last   []byte      `json:"last,omitempty"`
	Pos    []byte      `json:"pos,omitempty"`
	Done   bool        `json:"done,omitempty"`
	Holder core.NodeID `json:"holder,omitempty"`
	Boot   uint64      `json:"boot,omitempty"`
	Lane   int         `json:"lane,omitempty"`
	Pages  int64       `json:"pages,omitempty"`
	Keys   int64       `json:"keys,omitempty"`
	Books  Books       `json:"books"`
	Errors []Error     `json:"errors,omitempty"`
	Left   int64       `json:"left,omitempty"`
	Bound  []byte      `json:"bound,omitempty"`
	Edge   []byte      `json:"edge,omitempty"`
}

// rangeBudget is what a job has spent on looking for places to cut ranges at, in
// calls of the listing. It is a row beside the ranges.
type rangeBudget struct {
	Spent int64 `json:"spent"`
}

// The rows of a job's range table begin with these in their Sub. A phase of the
// job has a table of its own.
const (
	subRange  = "r"
	subBudget = "b"
)

func rangeKey(id, table, after string) core.RowKey {
	return core.RowKey{Bucket: core.SystemBucket, Space: core.SpaceCursor, Key: id, Sub: table + subRange + after}
}

func budgetKey(id, table string) core.RowKey {
	return core.RowKey{Bucket: core.SystemBucket, Space: core.SpaceCursor, Key: id, Sub: table + subBudget}
}

func (r *keyRange) encode() ([]byte, error) {
	b, err := json.Marshal(rangeRecord{
		Last: []byte(r.Last), Pos: []byte(r.Pos), Done: r.Done, Holder: r.Holder, Boot: r.Boot, Lane: r.Lane, Pages: r.Pages, Keys: r.Keys,
		Books: r.Books, Errors: r.Errors, Left: r.Left, Bound: []byte(r.Bound), Edge: []byte(r.Edge),
	})
	if err != nil {
		return nil, fmt.Errorf("encode range: %w", err)
	}
	return b, nil
}

func decodeRange(after string, b []byte) (keyRange, error) {
	var r rangeRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return keyRange{}, fmt.Errorf("range after %q: %w: %w", after, core.ErrCorrupt, err)
	}
	return keyRange{
		After: after, Last: string(r.Last), Pos: string(r.Pos), Done: r.Done, Holder: r.Holder, Boot: r.Boot, Lane: r.Lane, Pages: r.Pages, Keys: r.Keys,
		Books: r.Books, Errors: r.Errors, Left: r.Left, Bound: string(r.Bound), Edge: string(r.Edge),
	}, nil
}

// rowOfRange is a range as it was read or written.
type rowOfRange struct {
	keyRange
	version core.Version
}

// rangeTable is all that is known of a job's ranges, in order of keys.
type rangeTable struct {
	ranges []rowOfRange
	budget rangeBudget
	// budgetAt is the version of the budget's row, zero if there is none.
	budgetAt core.Version
}

// decodeTable reads the rows of one table, and refuses one whose ranges do not
// tile the key space.
func decodeTable(table string, rows []core.Row) (*rangeTable, error) {
	t := &rangeTable{}
	for i := range rows {
		row := &rows[i]
		sub, ok := strings.CutPrefix(row.Sub, table)
		switch {
		case !ok:
		case sub == subBudget:
			if err := json.Unmarshal(row.Value, &t.budget); err != nil {
				return nil, fmt.Errorf("budget of ranges: %w: %w", core.ErrCorrupt, err)
			}
			t.budgetAt = row.Version
		case strings.HasPrefix(sub, subRange):
			r, err := decodeRange(sub[len(subRange):], row.Value)
			if err != nil {
				return nil, err
			}
			t.ranges = append(t.ranges, rowOfRange{r, row.Version})
		}
	}
	slices.SortFunc(t.ranges, func(a, b rowOfRange) int { return strings.Compare(a.After, b.After) })
	return t, t.check()
}

// check says whether the ranges tile the key space.
func (t *rangeTable) check() error {
	end := ""
	for i := range t.ranges {
		r := &t.ranges[i]
		if r.After != end || i > 0 && end == "" {
			return fmt.Errorf("ranges: one ends at %q, the next begins at %q: %w", end, r.After, core.ErrCorrupt)
		}
		end = r.Last
	}
	if end != "" {
		return fmt.Errorf("ranges: the last one ends at %q: %w", end, core.ErrCorrupt)
	}
	return nil
}

// done says whether all ranges are through.
func (t *rangeTable) done() bool {
	for i := range t.ranges {
		if !t.ranges[i].Done {
			return false
		}
	}
	return len(t.ranges) > 0
}

// freeCalls and pagesPerCall bound how many calls a job may make beyond one for each
// full page of keys: as many, and one more for so many pages.
const (
	freeCalls    = 16
	pagesPerCall = 10
)

// affords says whether so many more calls may be made to cut ranges. What is spent
// are probes, and a page for each range, since its last one need not be full; of
// ranges that are through it is known how full it was.
func (t *rangeTable) affords(calls int64, page int) bool {
	spent := float64(t.budget.Spent + 1) // the first range had no cut
	full := 0.0
	for i := range t.ranges {
		r := &t.ranges[i]
		pages := float64(r.Keys) / float64(page)
		full += pages
		if r.Done {
			spent -= 1 - (float64(r.Pages) - pages)
		}
	}
	return spent+float64(calls) <= freeCalls+full/pagesPerCall
}
