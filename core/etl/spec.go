package etl

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
)

// The types of transforms.
const (
	WASM = "wasm"
	// Container is a Pod specification, for Kubernetes.
	Container = "spec"
)

// MaxSettings bounds the settings of a transform, as they are kept, in bytes:
// every node has them all in memory, and a job's are part of its specification.
const MaxSettings = 64 << 10

// Spec is a version of a transform: code, by its digest, and settings. It does
// not change; another one may take its name.
type Spec struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Digest string `json:"digest"` // "sha256:" and hexadecimal
	Size   int64  `json:"size"`   // of the code, in bytes
	ABI    string `json:"abi,omitempty"`
	// Memory is the limit of an instance's memory in bytes, Timeout the time for
	// an object beside that of its size; 0: the runtime's defaults.
	Memory  int64             `json:"memory,omitempty"`
	Timeout time.Duration     `json:"timeout,omitempty"`
	Args    map[string]string `json:"args,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	// Ext replaces extensions of names, for jobs that do not say otherwise;
	// ContentType is that of outputs whose transform sets none.
	Ext         map[string]string `json:"ext,omitempty"`
	ContentType string            `json:"content_type,omitempty"`
	// Fresh says that every object gets an instance of its own.
	Fresh   bool      `json:"fresh,omitempty"`
	Created time.Time `json:"created"`
}

// Ref is the version as users see it.
func (s *Spec) Ref() core.TransformRef { return core.TransformRef{Name: s.Name, Digest: s.Digest} }

// Version names code and settings. Two specs of one version do the same; when they
// were created does not matter.
func (s *Spec) Version() string {
	c := *s
	c.Created = time.Time{}
	b, err := json.Marshal(&c)
	if err != nil {
		panic(fmt.Sprintf("a transform's settings cannot be encoded: %v", err)) // strings and numbers only
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// id is the name by which a runtime knows the version.
func (s *Spec) id() string { return s.Name + separator + s.Version() }

// separator stands between name and version in ids.
const separator = "#"

// NameOf is the transform's name and version of an id that a [Runtime] was given.
func NameOf(id string) (name, version string) {
	name, version, _ = strings.Cut(id, separator)
	return name, version
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)

// CheckName says whether a name can be a transform's.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("transform %q: want up to 63 letters, digits, - and _, a letter or digit first: %w", name, core.ErrInvalid)
	}
	return nil
}

// validate says what is wrong with the settings, whatever the type.
func (s *Spec) validate() error {
	if err := CheckName(s.Name); err != nil {
		return err
	}
	if s.Memory < 0 || s.Timeout < 0 {
		return fmt.Errorf("transform %s: memory and timeout cannot be negative: %w", s.Name, core.ErrInvalid)
	}
	for from, to := range s.Ext {
		if from == "" || to == "" || strings.ContainsAny(from+to, "/\x00") {
			return fmt.Errorf("transform %s: the extension %q to %q: %w", s.Name, from, to, core.ErrInvalid)
		}
	}
	if strings.ContainsAny(s.ContentType, "\r\n\x00") {
		return fmt.Errorf("transform %s: the content type %q: %w", s.Name, s.ContentType, core.ErrInvalid)
	}
	b, err := json.Marshal(s)
	if err == nil && len(b) > MaxSettings {
		err = fmt.Errorf("transform %s: %d bytes of arguments and settings, at most %d: %w", s.Name, len(b), MaxSettings, core.ErrTooLarge)
	}
	return err
}

// entry is what the bus keeps under a name, for ever: a transform that was
// removed leaves an entry without Spec, so that nobody takes an old entry for a
// newer one.
type entry struct {
	Name       string `json:"name"`
	Generation uint64 `json:"generation"` // grows by one with every change
	Spec       *Spec  `json:"spec,omitempty"`
	Stopped    bool   `json:"stopped,omitempty"`
	// Started counts the orders to start, which end what a node stopped by itself.
	Started uint64 `json:"started,omitempty"`
	// Former is code that the name stood for of late: a job that resolved it may
	// be about to begin.
	Former []former `json:"former,omitempty"`
}

type former struct {
	Digest string    `json:"digest"`
	Until  time.Time `json:"until"`
}

// leave adds the present code to what the name stood for of late.
func (e *entry) leave(now time.Time) {
	var keep []former
	for _, f := range e.Former {
		if now.Sub(f.Until) < lingering {
			keep = append(keep, f)
		}
	}
	if e.Spec != nil {
		keep = append(keep, former{e.Spec.Digest, now})
	}
	e.Former = keep
}

// Latest returns the newest of what several nodes have copied of a key, nil if it is no
// transform's or none can be read; and the transform's name, "" if it was removed.
func Latest(k string, copies [][]byte) (value []byte, name string) {
	var latest entry
	for _, c := range copies {
		var e entry
		if json.Unmarshal(c, &e) == nil && key(e.Name) == k && e.Generation > latest.Generation {
			latest, value = e, c
		}
	}
	if latest.Spec != nil {
		name = latest.Name
	}
	return value, name
}
