package shardio

import (
	"fmt"
	"io"

	"github.com/shoalstore/shoal/core"
)

// Fill reads from src until p is full or src ends, and says whether it ended.
// Unlike [io.ReadFull] it tells the end of src from an io.ErrUnexpectedEOF with
// which src reports that it was cut off.
func Fill(src io.Reader, p []byte) (n int, end bool, err error) {
	idle := 0
	for n < len(p) {
		m, err := src.Read(p[n:])
		n += m
		switch {
		case err == io.EOF:
			return n, true, nil
		case err != nil:
			return n, false, fmt.Errorf("read the data to be written: %w", err)
		case m > 0:
			idle = 0
		default:
			if idle++; idle == 100 {
				return n, false, fmt.Errorf("read the data to be written: %w", io.ErrNoProgress)
			}
		}
	}
	return n, false, nil
}

// CheckWrite completes a spec for a scheme, or says what is wrong with it.
func CheckWrite(w *core.WriteSpec, s core.Scheme) error {
	if len(w.Dst) != s.Width() {
		return fmt.Errorf("write as %v: %d disks given, want %d: %w", s, len(w.Dst), s.Width(), core.ErrInvalid)
	}
	if err := checkTargets(w.Dst); err != nil {
		return fmt.Errorf("write as %v: %w", s, err)
	}
	if w.Extent == (core.ExtentID{}) {
		w.Extent = core.NewExtentID()
	}
	return nil
}

func checkTargets(ts []core.Target) error {
	for i, t := range ts {
		if t.Store != nil && t.Disk == 0 {
			return fmt.Errorf("the target of index %d has a store but no disk number: %w", i, core.ErrInvalid)
		}
	}
	return nil
}

// CheckRead says what is wrong with a spec for a scheme.
func CheckRead(r *core.ReadSpec, s core.Scheme) error {
	switch e := &r.Extent; {
	case e.Scheme != s:
		return fmt.Errorf("extent %x was written as %v, not %v: %w", e.ID, e.Scheme, s, core.ErrInvalid)
	case e.Size <= 0 || len(e.Places) != s.Width():
		return fmt.Errorf("extent %x has size %d and %d places, not %d: %w", e.ID, e.Size, len(e.Places), s.Width(), core.ErrInvalid)
	case len(r.Src) != s.Width():
		return fmt.Errorf("extent %x: %d stores given, want %d: %w", e.ID, len(r.Src), s.Width(), core.ErrInvalid)
	}
	return nil
}

// CheckRepair says what is wrong with a spec for a scheme.
func CheckRepair(r *core.RepairSpec, s core.Scheme) error {
	if err := CheckRead(&r.ReadSpec, s); err != nil {
		return err
	}
	bad := func(why string) error {
		return fmt.Errorf("repair extent %x: %s: %w", r.Extent.ID, why, core.ErrInvalid)
	}
	if len(r.Shards) == 0 || len(r.Dst) != len(r.Shards) {
		return bad(fmt.Sprintf("%d disks given for %d shards", len(r.Dst), len(r.Shards)))
	}
	if err := checkTargets(r.Dst); err != nil {
		return fmt.Errorf("repair extent %x: %w", r.Extent.ID, err)
	}
	seen := make([]bool, s.Width())
	for _, i := range r.Shards {
		if i < 0 || i >= len(seen) || seen[i] {
			return bad(fmt.Sprintf("shard %d does not exist or is named twice", i))
		}
		seen[i] = true
	}
	return nil
}
