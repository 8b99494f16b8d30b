package nodeserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// stateFormat is the version of the node's own files.
const stateFormat = 1

// identity is node.json: who the node is. It does not change.
type identity struct {
	Format  int         `json:"format"`
	Cluster string      `json:"cluster"`
	Node    core.NodeID `json:"node"`
	// VoterKey names the voter's state. It is new whenever that was lost.
	VoterKey string `json:"voter_key"`
}

// state is the node's directory: node.json, the newest map, the map that its
// voter confirmed last.
type state struct {
	dir  string
	lock *os.File
	id   identity
}

func (s *state) file(name string) string { return filepath.Join(s.dir, name) }

// createState makes the directory of a new node.
func createState(dir string, id identity, m *core.Map, votes bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s := &state{dir: dir, id: id}
	enc, err := m.Encode()
	if err != nil {
		return err
	}
	if votes {
		if err := writeDurably(s.file("voter"), enc); err != nil {
			return err
		}
	}
	if err := writeDurably(s.file("map"), enc); err != nil {
		return err
	}
	id.Format = stateFormat
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeDurably(s.file("node.json"), append(b, '\n'))
}

// exists says whether the directory belongs to a node already.
func stateExists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "node.json"))
	return err == nil
}

// openState reads the directory and keeps other processes out of it.
func openState(dir string) (*state, error) {
	s := &state{dir: dir}
	b, err := os.ReadFile(s.file("node.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("node.data %s: this node belongs to no cluster yet; make one with `shoal init --config FILE`, or join one with `shoal cluster join --config FILE`: %w", dir, core.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("node.data: %w", err)
	}
	if err := json.Unmarshal(b, &s.id); err != nil {
		return nil, fmt.Errorf("%s: %w: %w; restore it, or decommission this node, remove node.data and let it join anew", s.file("node.json"), core.ErrCorrupt, err)
	}
	if s.id.Format != stateFormat {
		return nil, fmt.Errorf("%s: format %d, this program knows %d; use a newer one: %w", s.file("node.json"), s.id.Format, stateFormat, core.ErrNewer)
	}
	if s.lock, err = os.OpenFile(s.file("lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("node.data: the user that runs the server must be able to write it: %w", err)
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = s.lock.Close()
		return nil, fmt.Errorf("node.data %s: another process runs this node; stop it first, or give this node another node.data: %w", dir, core.ErrLocked)
	}
	// A map that cannot be stored would be noticed only when it is too late.
	if err := s.tidy(); err != nil {
		return nil, errors.Join(fmt.Errorf("node.data: the user that runs the server must be able to write it: %w", err), s.close())
	}
	return s, nil
}

// tidy removes what an earlier process did not finish writing, and fails if the
// directory does not take new files.
func (s *state) tidy() error {
	probe, err := os.CreateTemp(s.dir, "probe.*.tmp")
	if err != nil {
		return err
	}
	if err := probe.Close(); err != nil {
		return err
	}
	old, err := filepath.Glob(s.file("*.tmp"))
	if err != nil {
		return err
	}
	for _, name := range old {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

func (s *state) close() error { return s.lock.Close() }

// readMap reads a stored map; nil where there is none.
func (s *state) readMap(name string) (*core.Map, error) {
	b, err := os.ReadFile(s.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no map is no error
	}
	if err != nil {
		return nil, err
	}
	m, err := core.DecodeMap(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.file(name), err)
	}
	if m.Cluster != s.id.Cluster {
		return nil, fmt.Errorf("%s: the map is of cluster %s, the node of %s: %w", s.file(name), m.Cluster, s.id.Cluster, core.ErrInvalid)
	}
	return m, nil
}

// voter returns the voter's state. One that was lost or damaged gets a new key,
// so that it does not vote before a map names it anew.
func (s *state) voter() (slot.VoterState, error) {
	m, err := s.readMap("voter")
	if err != nil && !errors.Is(err, core.ErrCorrupt) {
		return slot.VoterState{}, err
	}
	if m == nil || err != nil {
		s.id.VoterKey = core.NewRequestID().String()
		b, err := json.MarshalIndent(s.id, "", "  ")
		if err != nil {
			return slot.VoterState{}, err
		}
		if err := writeDurably(s.file("node.json"), append(b, '\n')); err != nil {
			return slot.VoterState{}, err
		}
		if err := os.Remove(s.file("voter")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return slot.VoterState{}, err
		}
	}
	return slot.VoterState{Key: s.id.VoterKey, Map: m}, nil
}

func (s *state) saveVoter(v slot.VoterState) error { return s.saveMapAs("voter", v.Map) }

func (s *state) saveMap(m *core.Map) error { return s.saveMapAs("map", m) }

func (s *state) saveMapAs(name string, m *core.Map) error {
	b, err := m.Encode()
	if err != nil {
		return err
	}
	return writeDurably(s.file(name), b)
}

// writeDurably replaces a file: after a crash it is the old one or the new one.
func writeDurably(name string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}
