package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// The seal notes how much of Pebble's logs is durable, so that damage is told
// from the torn end that a crash leaves; see docs/disk-format.md.

const (
	sealMagic   = "SHOALSL1"
	sealSector  = 512
	sealSectors = 4
	sealHeader  = 8 + 8 + 8 + 8 + 1
)

// logKind is a kind of file that Pebble appends to and reads until its first
// damaged record.
type logKind int

const (
	notALog logKind = iota
	walLog
	manifestLog
)

func logKindOf(base string) logKind {
	switch {
	case strings.HasSuffix(base, ".log"):
		return walLog
	case strings.HasPrefix(base, "MANIFEST-"):
		return manifestLog
	}
	return notALog
}

// seal is the open meta.seal.
type seal struct {
	f vfs.File

	mu   sync.Mutex
	note uint64
	turn [3]int // by logKind: the sector to write next
}

// sealNote is what a sector says.
type sealNote struct {
	note   uint64
	length int64
	hash   uint64
	name   string
}

func (n *sealNote) encode() []byte {
	b := make([]byte, 0, sealSector)
	b = append(b, sealMagic...)
	b = binary.LittleEndian.AppendUint64(b, n.note)
	b = binary.LittleEndian.AppendUint64(b, uint64(n.length))
	b = binary.LittleEndian.AppendUint64(b, n.hash)
	b = append(b, byte(len(n.name)))
	b = append(b, n.name...)
	b = b[:sealSector-sumSize]
	return binary.LittleEndian.AppendUint64(b, xxh3.Hash(b))
}

func decodeSealNote(b []byte) (n sealNote, ok bool) {
	if len(b) != sealSector || string(b[:8]) != sealMagic {
		return n, false
	}
	body := b[:sealSector-sumSize]
	if binary.LittleEndian.Uint64(b[len(body):]) != xxh3.Hash(body) {
		return n, false
	}
	n.note = binary.LittleEndian.Uint64(b[8:])
	n.length = int64(binary.LittleEndian.Uint64(b[16:]))
	n.hash = binary.LittleEndian.Uint64(b[24:])
	k := int(b[32])
	if sealHeader+k > len(body) || n.length < 0 {
		return n, false
	}
	n.name = string(b[sealHeader : sealHeader+k])
	return n, true
}

// openSeal opens the seal of a disk, makes it if it is missing, and checks the
// logs in meta against it.
func openSeal(fsys vfs.FS, name, meta string) (*seal, error) {
	f, err := fsys.OpenReadWrite(name)
	if err != nil {
		return nil, fmt.Errorf("open seal: %w", err)
	}
	s := &seal{f: f}
	if err := s.load(fsys, meta); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func (s *seal) load(fsys vfs.FS, meta string) error {
	b := make([]byte, sealSector*sealSectors)
	n, err := s.f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read seal: %w", err)
	}
	if n < len(b) {
		clear(b[n:])
		if _, err := s.f.WriteAt(b[n:], int64(n)); err != nil {
			return fmt.Errorf("make seal: %w", err)
		}
		if err := s.f.SyncData(); err != nil {
			return fmt.Errorf("make seal: %w", err)
		}
	}
	for i := range sealSectors {
		note, ok := decodeSealNote(b[i*sealSector : (i+1)*sealSector])
		if !ok {
			continue
		}
		if err := note.check(fsys, meta); err != nil {
			return err
		}
		if note.note > s.note {
			s.note = note.note
		}
	}
	return nil
}

// check compares a log with the note. A log that is gone was not needed.
func (n *sealNote) check(fsys vfs.FS, meta string) (err error) {
	if n.name != filepath.Base(n.name) || logKindOf(n.name) == notALog {
		return nil
	}
	f, err := fsys.Open(filepath.Join(meta, n.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", n.name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var h xxh3.Hasher
	k, err := io.Copy(&h, io.LimitReader(f, n.length))
	if err != nil {
		return fmt.Errorf("check %s: %w", n.name, err)
	}
	if k != n.length || h.Sum64() != n.hash {
		return fmt.Errorf("meta/%s: its first %d bytes are not what was written: %w", n.name, n.length, core.ErrCorrupt)
	}
	return nil
}

// record notes that the first length bytes of a log are durable.
func (s *seal) record(kind logKind, name string, length int64, hash uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note++
	sector := (int(kind)-1)*2 + s.turn[kind]
	s.turn[kind] ^= 1
	n := sealNote{note: s.note, length: length, hash: hash, name: name}
	_, err := s.f.WriteAt(n.encode(), int64(sector)*sealSector)
	return err
}

func (s *seal) sync() error  { return s.f.SyncData() }
func (s *seal) close() error { return s.f.Close() }

// logState follows a log as it is written.
type logState struct {
	kind   logKind
	length int64
	hash   xxh3.Hasher
	noted  int64
}

func (l *logState) wrote(p []byte) {
	_, _ = l.hash.Write(p)
	l.length += int64(len(p))
}
