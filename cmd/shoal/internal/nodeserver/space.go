package nodeserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/job"
)

// space says when copies of remote objects are evicted.
func (s *server) space() job.Space {
	const percent = 100
	return job.Space{
		Low: float64(s.cfg.Space.LowWM) / percent, High: float64(s.cfg.Space.HighWM) / percent, Usage: s.diskUses,
	}
}

// diskUses returns how full the disks of all nodes are that answer.
func (s *server) diskUses(ctx context.Context) ([]job.DiskUse, error) {
	m := s.node.Map()
	if m == nil {
		return nil, fmt.Errorf("this node knows no map in effect yet: %w", core.ErrUnavailable)
	}
	return usesOf(m, s.locals(ctx)), nil
}

// usesOf finds in the map the disks that nodes told of.
func usesOf(m *core.Map, locals map[core.NodeID]local) []job.DiskUse {
	var out []job.DiskUse
	for i := range m.Disks {
		d := &m.Disks[i]
		for _, l := range locals[d.Node].Disks {
			if l.UUID == d.UUID && d.State == core.DiskOK {
				out = append(out, job.DiskUse{Disk: d.ID, Capacity: l.Capacity, Used: l.Capacity - l.Free})
			}
		}
	}
	return out
}

// access is what saveAccess kept; without it nothing else is lost.
func (s *state) access(log *slog.Logger) []byte {
	b, err := os.ReadFile(s.file("access"))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.Warn("when remote objects were last used is not known any more", "err", err)
		}
		return nil
	}
	return b
}

func (s *state) saveAccess(b []byte) error { return writeDurably(s.file("access"), b) }
