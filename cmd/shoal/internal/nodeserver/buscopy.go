package nodeserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalstore/shoal/bus"
)

// busCopyDir, in a node's directory, has a file for each entry that the bus holds beside
// the map: transforms and jobs. `shoal recover` makes them again from it where the bus
// was lost; nothing else reads it.
const busCopyDir = "bus-copy"

// busCopy is that directory.
type busCopy struct {
	dir  string
	have map[string][]byte // by file
}

// copyBus keeps the copy up to date until ctx ends.
func (s *server) copyBus(ctx context.Context) error {
	if s.cfg.Bus.URL != "" {
		return waitEnd(ctx) // that bus is its operator's
	}
	c, err := openBusCopy(s.state.file(busCopyDir))
	if err != nil {
		return err
	}
	for e := range s.bus.Jobs().Watch(ctx, "") {
		if err := c.take(e); err != nil {
			s.log.Warn("an entry of the bus is not copied; `shoal recover` would not know of it", "key", e.Key, "err", err)
		}
	}
	return nil
}

func openBusCopy(dir string) (*busCopy, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("copy of the bus: %w", err)
	}
	c := &busCopy{dir: dir, have: map[string][]byte{}}
	return c, eachCopied(dir, func(file string, e bus.KeyValue) { c.have[file] = e.Value })
}

// take writes an entry down, unless it is there.
func (c *busCopy) take(e bus.Entry) error {
	sum := sha256.Sum256([]byte(e.Key))
	file := hex.EncodeToString(sum[:])
	if e.Deleted {
		delete(c.have, file)
		if err := os.Remove(filepath.Join(c.dir, file)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if have, ok := c.have[file]; ok && bytes.Equal(have, e.Value) {
		return nil
	}
	b, err := json.Marshal(bus.KeyValue{Key: e.Key, Value: e.Value})
	if err == nil {
		err = writeDurably(filepath.Join(c.dir, file), b)
	}
	if err == nil {
		c.have[file] = slices.Clone(e.Value)
	}
	return err
}

// eachCopied reads a copy. What cannot be read is as good as not there: another node
// has it too.
func eachCopied(dir string, each func(file string, e bus.KeyValue)) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("copy of the bus: %w", err)
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".tmp") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		var e bus.KeyValue
		if err == nil && json.Unmarshal(b, &e) == nil && bus.CheckKey(e.Key) == nil {
			each(f.Name(), e)
		}
	}
	return nil
}
