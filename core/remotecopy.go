package core

import (
	"encoding/binary"
	"fmt"
)

// RemoteCopy says of which state of a remote object a record is a copy, and how
// much of it is here.
type RemoteCopy struct {
	// Version is the remote's name of the state.
	Version RemoteVersion
	// Partial says that no more is here than Runs, which may be nothing: then
	// only the metadata is. Otherwise the data is here as in any record.
	Partial bool
	// Runs say where in the object each of Extents lies, in the same order. They
	// rise and do not overlap. They are empty unless Partial.
	Runs []Run
}

// Run is a run of an object's bytes.
type Run struct{ Offset, Size int64 }

// End is the offset behind the run.
func (r Run) End() int64 { return r.Offset + r.Size }

// Whole says whether all of the object's data is here.
func (r *Record) Whole() bool {
	return r.Remote == nil || !r.Remote.Partial || len(r.MissingRuns(0, r.Size)) == 0
}

// MetadataOnly says whether the object has data of which nothing is here.
func (r *Record) MetadataOnly() bool {
	return r.Size > 0 && r.Remote != nil && r.Remote.Partial && len(r.Remote.Runs) == 0
}

// StoredBytes is how many of the object's bytes are here.
func (r *Record) StoredBytes() int64 {
	if r.Remote == nil || !r.Remote.Partial {
		return r.Size
	}
	var n int64
	for _, run := range r.Remote.Runs {
		n += run.Size
	}
	return n
}

// ExtentRuns says where in the object each of Extents lies. The caller may keep
// the result, but not change it.
func (r *Record) ExtentRuns() []Run {
	if r.Remote != nil && r.Remote.Partial {
		return r.Remote.Runs
	}
	runs := make([]Run, len(r.Extents))
	var at int64
	for i := range r.Extents {
		runs[i] = Run{Offset: at, Size: r.Extents[i].Size}
		at += r.Extents[i].Size
	}
	return runs
}

// MissingRuns returns, in order, what of the bytes from start to end, which is not
// included, is not here. Bytes beyond the object do not count.
func (r *Record) MissingRuns(start, end int64) []Run {
	start, end = max(start, 0), min(end, r.Size)
	if start >= end || r.Remote == nil || !r.Remote.Partial {
		return nil
	}
	var out []Run
	for _, run := range r.Remote.Runs {
		if run.Offset >= end {
			break
		}
		if run.Offset > start {
			out = append(out, Run{Offset: start, Size: run.Offset - start})
		}
		start = max(start, run.End())
	}
	if start < end {
		out = append(out, Run{Offset: start, Size: end - start})
	}
	return out
}

// checkRuns refuses a record whose runs and extents do not agree.
func (r *Record) checkRuns() error {
	c := r.Remote
	if c == nil || !c.Partial {
		return nil
	}
	if len(c.Runs) != len(r.Extents) || r.Inline != nil || r.Size < 0 {
		return fmt.Errorf("record: %d runs for %d extents: %w", len(c.Runs), len(r.Extents), ErrCorrupt)
	}
	var at int64
	for i, run := range c.Runs {
		if run.Size != r.Extents[i].Size || run.Size == 0 || run.Offset < at || run.Size > r.Size-run.Offset {
			return fmt.Errorf("record: run %d, of %d bytes at %d of %d: %w", i, run.Size, run.Offset, r.Size, ErrCorrupt)
		}
		at = run.End()
	}
	return nil
}

func appendRemoteCopy(b []byte, c *RemoteCopy) []byte {
	b = appendString(b, string(c.Version))
	b = append(b, flag(c.Partial))
	if !c.Partial {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(c.Runs)))
	for _, run := range c.Runs {
		b = binary.AppendUvarint(b, uint64(run.Offset))
		b = binary.AppendUvarint(b, uint64(run.Size))
	}
	return b
}

func (d *decoder) remoteCopy() *RemoteCopy {
	c := &RemoteCopy{Version: RemoteVersion(d.string())}
	var partial [1]byte
	d.fixed(partial[:])
	if c.Partial = partial[0] != 0; !c.Partial {
		return c
	}
	if n := d.count(maxExtents, 2); n > 0 {
		c.Runs = make([]Run, n)
	}
	for i := range c.Runs {
		c.Runs[i] = Run{Offset: int64(d.uvarint()), Size: int64(d.uvarint())}
		if c.Runs[i].Offset < 0 || c.Runs[i].Size < 0 {
			d.fail()
		}
	}
	return c
}
