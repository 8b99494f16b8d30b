package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/vfs"
)

// FormatVersion is the version of the format that this package writes, and the
// highest that it reads.
const FormatVersion = 1

// knownFeatures are the feature bits that this package understands.
const knownFeatures = 0

const (
	identityName   = "shoal.json"
	identityBackup = "shoal.json.bak"
	lockName       = "lock"
	formattingName = "formatting"
	metaName       = "meta"
	sealName       = "meta.seal"
	dataName       = "data"
	tmpName        = "tmp"
)

// Identity says which disk a directory is.
type Identity struct {
	// Format is the version of the format, Features the bits of what was
	// added to it that a reader must know.
	Format   int    `json:"format"`
	Features uint64 `json:"features"`
	// Generation counts the changes of the identity.
	Generation uint64 `json:"generation"`
	// Cluster is the id of the cluster that the disk belongs to.
	Cluster string      `json:"cluster"`
	Node    core.NodeID `json:"node"`
	// UUID names the disk for as long as it keeps what it has.
	UUID    string    `json:"uuid"`
	Created time.Time `json:"created"`
}

// identityFile is the form of shoal.json.
type identityFile struct {
	Disk     json.RawMessage `json:"disk"`
	Checksum string          `json:"checksum"`
}

func (id *Identity) encode() ([]byte, error) {
	body, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(identityFile{Disk: body, Checksum: identitySum(body)}, "", "  ")
	return append(b, '\n'), err
}

func identitySum(compact []byte) string { return fmt.Sprintf("%016x", xxh3.Hash(compact)) }

// decodeIdentity reads a copy of shoal.json.
func decodeIdentity(b []byte) (id Identity, err error) {
	var f identityFile
	if err := json.Unmarshal(b, &f); err != nil {
		return id, fmt.Errorf("%w: %w", core.ErrCorrupt, err)
	}
	var body bytes.Buffer
	if err := json.Compact(&body, f.Disk); err != nil {
		return id, fmt.Errorf("%w: %w", core.ErrCorrupt, err)
	}
	if identitySum(body.Bytes()) != f.Checksum {
		return id, fmt.Errorf("checksum mismatch: %w", core.ErrCorrupt)
	}
	if err := json.Unmarshal(body.Bytes(), &id); err != nil {
		return id, fmt.Errorf("%w: %w", core.ErrCorrupt, err)
	}
	return id, nil
}

// supported says whether this program may touch the disk.
func (id *Identity) supported() error {
	switch {
	case id.Format > FormatVersion || id.Format < 1:
		return fmt.Errorf("format version %d, this program knows up to %d; use a newer one: %w",
			id.Format, FormatVersion, core.ErrNewer)
	case id.Features&^knownFeatures != 0:
		return fmt.Errorf("feature bits %#x are unknown to this program; use a newer one: %w",
			id.Features&^knownFeatures, core.ErrNewer)
	}
	return nil
}

// ReadIdentity says which disk a directory is, without opening it. A directory
// that is none is [core.ErrUnformatted].
func ReadIdentity(fsys vfs.FS, dir string) (Identity, error) {
	id, _, err := readIdentity(fsys, dir)
	return id, err
}

// readIdentity also says whether a copy has to be written anew.
func readIdentity(fsys vfs.FS, dir string) (id Identity, repair bool, err error) {
	var copies [2]Identity
	var errs [2]error
	for i, name := range []string{identityName, identityBackup} {
		var b []byte
		if b, errs[i] = readFile(fsys, filepath.Join(dir, name)); errs[i] == nil {
			copies[i], errs[i] = decodeIdentity(b)
		}
		if errs[i] != nil {
			errs[i] = fmt.Errorf("%s: %w", name, errs[i])
		}
	}
	missing := func(i int) bool { return errors.Is(errs[i], fs.ErrNotExist) }
	lost := func(i int) bool { return missing(i) || errors.Is(errs[i], core.ErrCorrupt) }
	switch {
	case errs[0] == nil && errs[1] == nil:
		id, repair = copies[0], copies[0] != copies[1]
		if copies[1].Generation > id.Generation {
			id = copies[1]
		}
	case errs[0] == nil:
		id, repair = copies[0], true
	case errs[1] == nil:
		id, repair = copies[1], true
	case missing(0) && missing(1):
		return id, false, fmt.Errorf("%s has no %s (is the disk mounted? `shoal disk format` makes it one): %w",
			dir, identityName, core.ErrUnformatted)
	case lost(0) && lost(1):
		return id, false, fmt.Errorf("disk %s: %w: %w, %w", dir, ErrIdentity, errs[0], errs[1])
	default:
		return id, false, fmt.Errorf("disk %s: %w", dir, errors.Join(errs[:]...))
	}
	if err := id.supported(); err != nil {
		return id, false, fmt.Errorf("disk %s: %w", dir, err)
	}
	return id, repair, nil
}

// writeIdentity makes both copies durable, the backup first.
func writeIdentity(fsys vfs.FS, dir string, id *Identity) error {
	b, err := id.encode()
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	for _, name := range []string{identityBackup, identityName} {
		if err := replaceFile(fsys, filepath.Join(dir, name), b); err != nil {
			return fmt.Errorf("write identity: %w", err)
		}
		if err := fsys.SyncDir(dir); err != nil {
			return fmt.Errorf("write identity: %w", err)
		}
	}
	return nil
}

func readFile(fsys vfs.FS, name string) (b []byte, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, 1<<20))
}

// replaceFile gives a file new content, all of it or nothing. The directory is
// not synced.
func replaceFile(fsys vfs.FS, name string, content []byte) error {
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return fsys.Rename(tmp, name)
}
