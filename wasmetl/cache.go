package wasmetl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// removing goes before the names of directories of compiled code that are being
// removed, so that one that a crash left half removed is never taken for code.
const removing = ".removing-"

// cached is a module's directory of compiled code.
type cached struct {
	name  string
	bytes int64
	used  time.Time
}

// used marks a directory as one that was needed just now.
func (h *Host) used(dir string) error {
	now := h.clock.Now()
	return os.Chtimes(dir, now, now)
}

// prune removes compiled code, what was not needed for longest first, until the rest
// fits into the bound. Code of modules that are loaded stays, whatever there is.
func (h *Host) prune(ctx context.Context) error {
	// Who loads a module counts as its user first and then compiles: while this one has
	// the turn to compile, whoever is not seen as a user yet finds out afterwards that
	// the code is gone, and has it made again.
	select {
	case h.compiler.one <- struct{}{}:
		defer func() { <-h.compiler.one }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	all, err := h.cachedCode()
	if err != nil {
		return err
	}
	var sum int64
	for _, c := range all {
		sum += c.bytes
	}
	for _, c := range all {
		// What has nothing is of a module that did not compile.
		if sum <= h.cacheSize && c.bytes > 0 || h.loads(c.name) {
			continue
		}
		if err := h.removeCode(c.name); err != nil {
			return err
		}
		sum -= c.bytes
		h.log.DebugContext(ctx, "compiled code of a transform was removed", "digest", digestPrefix+c.name, "bytes", c.bytes)
	}
	return nil
}

// loads says whether a module is loaded, or about to be.
func (h *Host) loads(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.modules[digestPrefix+name] != nil
}

// removeCode removes a directory of compiled code. It is renamed first: a part of one
// would have to be told from a whole one by compiling it.
func (h *Host) removeCode(name string) error {
	gone := filepath.Join(h.dir, removing+name)
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("compiled code: %w", err)
	}
	if err := os.Rename(filepath.Join(h.dir, name), gone); err != nil {
		return fmt.Errorf("compiled code: %w", err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("compiled code: %w", err)
	}
	return nil
}

// cachedCode lists the directories, what was not needed for longest first, and ends
// what an earlier removal began.
func (h *Host) cachedCode() ([]cached, error) {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return nil, fmt.Errorf("compiled code: %w", err)
	}
	var all []cached
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), removing) {
			if err := os.RemoveAll(filepath.Join(h.dir, e.Name())); err != nil {
				return nil, fmt.Errorf("compiled code: %w", err)
			}
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("compiled code: %w", err)
		}
		c := cached{name: e.Name(), used: info.ModTime()}
		if c.bytes, err = bytesBelow(filepath.Join(h.dir, e.Name())); err != nil {
			return nil, fmt.Errorf("compiled code: %w", err)
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b cached) int {
		return cmp.Or(a.used.Compare(b.used), strings.Compare(a.name, b.name))
	})
	return all, nil
}

func bytesBelow(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}
