package core

import (
	"context"
	"iter"
)

// SlotState is what a disk keeps of a slot beside its rows.
type SlotState struct {
	// Ballot is the highest that the disk has adopted for the slot.
	Ballot Ballot
	// Committed is the highest version that the disk was told is committed.
	Committed Version
	// Last is the highest version that the disk holds. Entries above
	// Committed may yet be undone.
	Last Version
	// Floor is the sequence number up to which tombstones have been dropped:
	// a disk whose Committed lies below another's floor cannot be brought
	// level by what came since.
	Floor uint64
}

// SlotBatch is a change of one slot on one disk. Its parts apply in the order
// of the fields; all of it happens or nothing.
type SlotBatch struct {
	Slot SlotID
	// Remove forgets the slot: all rows, answers and state. Nobody sees them
	// from then on; their space comes back by [RowStore.Reclaim].
	Remove bool
	// Adopt raises the adopted ballot.
	Adopt *Ballot
	// Undo removes the entries above the version, which becomes Last. Rows
	// show again what they were at that version. Only a joiner that starts
	// anew goes below Committed, which then becomes the version too; rows
	// that were replaced in between stay away until Replace brings them.
	Undo *Version
	// Replace makes a stretch of history what another disk says it is.
	Replace *Replace
	// Append adds entries, the first with Seq Last.Seq+1, without gaps.
	Append []Entry
	// Commit raises Committed, to Last at most. Versions of rows that
	// newer committed ones replace may go from then on. An entry's Floor
	// takes effect when it is committed.
	Commit *Version
}

// Replace says that the rows whose newest version has a sequence number in
// (After, UpTo.Seq] are exactly those of Entries, all of them committed. Rows
// of that stretch that Entries lack are removed, older versions of those it
// has are replaced; Committed and Last become UpTo. Entries above Committed are
// undone before that, and those above UpTo go.
type Replace struct {
	After   uint64
	UpTo    Version
	Floor   uint64
	Entries []Entry
}

// Entries is a run of a slot's history: see [RowStore.Entries].
type Entries struct {
	List []Entry
	// UpTo is the end of the run: everything up to it is in List.
	UpTo Version
}

// Scan says which rows to return; see [RowStore.Scan].
type Scan struct {
	Bucket BucketID
	Space  Space
	Prefix string
	// Rows that are not after (AfterKey, AfterSub) are left out; so is the row
	// of that name itself. Both empty: from the start.
	AfterKey, AfterSub string
	// Before, if not "", ends the scan at the first Key not below it.
	Before string
	// KeysOnly leaves values out.
	KeysOnly bool
	// Visible returns the version as of which a slot is read, and whether it
	// is read at all. It is called for every row and must be fast.
	Visible func(SlotID) (Version, bool)
}

// Found is a row met by a scan.
type Found struct {
	Slot SlotID
	Row
}

// RowStore keeps slots on one disk: rows, their recent versions, and answers to
// recent requests. Methods may be called concurrently, but two Apply calls with
// batches of one slot must not overlap.
type RowStore interface {
	// Slots returns the state of every slot on the disk.
	Slots(ctx context.Context) (map[SlotID]SlotState, error)
	// Apply makes the batches durable, all or none, and returns then. After
	// an error the disk is in doubt: it must be closed and opened again.
	Apply(ctx context.Context, batches []SlotBatch) error
	// Get returns the newest version of the row that is not above at, a
	// tombstone included, or ErrNotFound. An at below Committed counts as
	// Committed, so that a reader who took the mark before it rose does not
	// find the row gone. The same holds for Scan.
	Get(ctx context.Context, slot SlotID, key RowKey, at Version) (Row, error)
	// Answer returns what the entry with that request id answered, and its
	// version, or ErrNotFound.
	Answer(ctx context.Context, slot SlotID, id RequestID) (Version, []byte, error)
	// Entries returns, in order, the slot's entries with Seq above after and
	// a version not above upTo. Of an entry it returns the rows that are the
	// newest at upTo, tombstones included; entries of which nothing is left
	// but a remembered answer come without rows, those of which not even
	// that is left do not come. Entries above Committed come as they were
	// appended. It stops after the entry that passes maxBytes; Entries.UpTo
	// then is that entry's version, else upTo.
	Entries(ctx context.Context, slot SlotID, after uint64, upTo Version, maxBytes int) (Entries, error)
	// Scan returns rows in order, tombstones left out. The values are valid
	// only until the next step of the iteration.
	Scan(ctx context.Context, s Scan) iter.Seq2[Found, error]
	// DropAnswers forgets the answers of committed entries older than the
	// time, in milliseconds since 1970. In each slot it may stop at the
	// first entry that is not older.
	DropAnswers(ctx context.Context, before int64) error
	// Reclaim deletes up to limit rows, and as many answers, of slots that
	// were removed, and says whether there are more.
	Reclaim(ctx context.Context, limit int) (more bool, err error)
}
