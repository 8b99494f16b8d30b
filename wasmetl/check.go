package wasmetl

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl/meter"
)

// ABI is how a module and the host speak with each other.
type ABI int

// The interfaces.
const (
	// WASI is a command of WASI preview 1: standard input and output.
	WASI ABI = iota + 1
	// ShoalV1 is the import module shoal_v1 and the export shoal_transform.
	ShoalV1
)

// String is the name that users see.
func (a ABI) String() string {
	if a == ShoalV1 {
		return shoalModule
	}
	return "wasi"
}

// Sizes in WebAssembly.
const pageSize = 64 << 10

// Defaults and bounds of a transform's memory.
const (
	DefaultMemory = 64 << 20
	MaxMemory     = 1 << 30
)

// Report is what [Check] finds out about a module.
type Report struct {
	// Digest is that of the module as it was given: "sha256:" and hexadecimal.
	Digest string
	Size   int
	ABI    ABI
	// Memory is what the module begins with, in bytes.
	Memory int64
	// Functions counts the module's own.
	Functions int

	module *meter.Module
	init   bool // exports _initialize
	setup  bool // exports shoal_init
}

// ModuleError lists what is wrong with a module. It is [core.ErrInvalid].
type ModuleError struct{ Problems []string }

// Error implements error.
func (e *ModuleError) Error() string {
	return "not usable as a transform: " + strings.Join(e.Problems, "; ")
}

// Unwrap returns [core.ErrInvalid].
func (e *ModuleError) Unwrap() error { return core.ErrInvalid }

// Digest returns the digest of a module.
func Digest(wasm []byte) string {
	sum := sha256.Sum256(wasm)
	return digestPrefix + hex.EncodeToString(sum[:])
}

// moduleLimits are those of package meter, with tables that fit in the reserve
// of an instance.
func moduleLimits(size int) meter.Limits { return meter.Limits{Size: size, Tables: 4} }

// Check says whether a module can be a transform with so many bytes of memory
// (0: [DefaultMemory]), and all that is wrong with it. Size is the largest module
// taken, in bytes (0: 64 MiB). That its code is valid is found when it is compiled.
func Check(wasm []byte, memory int64, size int) (*Report, error) {
	if memory == 0 {
		memory = DefaultMemory
	}
	if memory < pageSize || memory > MaxMemory {
		return nil, fmt.Errorf("%w: a memory of %d bytes: give 64 KiB to 1 GiB", core.ErrInvalid, memory)
	}
	m, err := meter.Parse(wasm, moduleLimits(size))
	if err != nil {
		return nil, err
	}
	c := checker{m: m, r: &Report{Digest: Digest(wasm), Size: len(wasm), Functions: m.Functions, module: m}}
	c.imports()
	c.exports()
	c.memory(memory)
	if len(c.problems) > 0 {
		return nil, &ModuleError{c.problems}
	}
	return c.r, nil
}

type checker struct {
	m        *meter.Module
	r        *Report
	problems []string
}

func (c *checker) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// imports compares each import with what the host gives.
func (c *checker) imports() {
	known := hostFunctions()
	for _, i := range c.m.Imports {
		full := i.Module + "." + i.Name
		signature, ok := known[full]
		switch {
		case i.Kind != meter.Func:
			c.problem("imports the %s %s: the host gives functions only", i.Kind, quote(full))
		case !ok:
			c.problem("imports %s %s, which the host does not have%s", quote(full), i.Signature, hint(i.Module, full, known))
		case i.Signature != signature:
			c.problem("imports %s as %s, it is %s", quote(full), i.Signature, signature)
		}
		if len(c.problems) == 50 {
			c.problem("and so on")
			return
		}
	}
}

func quote(name string) string {
	if len(name) > 100 {
		name = name[:100] + "..."
	}
	return fmt.Sprintf("%q", name)
}

// hint names the nearest function, or says how to build for the host.
func hint(module, full string, known map[string]string) string {
	best, distance := "", 1+min(len(full), 60)/3
	for _, name := range slices.Sorted(maps.Keys(known)) {
		_, base, _ := strings.Cut(name, ".")
		_, wanted, _ := strings.Cut(full, ".")
		d := editDistance(full, name, distance)
		if base == wanted {
			d = min(d, 1)
		}
		if d < distance {
			best, distance = name, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf(" (the nearest is %q)", best)
	case strings.HasPrefix(module, "wasi:") || strings.Contains(module, "preview2"):
		return " (that is WASI preview 2: build for preview 1, wasm32-wasip1)"
	case strings.Contains(module, "wbindgen") || module == "gojs" || module == "go":
		return " (that is for browsers: build for WASI preview 1, as with GOOS=wasip1)"
	}
	return " (it has wasi_snapshot_preview1 and shoal_v1)"
}

// editDistance is the number of insertions, removals and replacements between
// a and b, or limit if it is not less.
func editDistance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}

// exports finds the interface.
func (c *checker) exports() {
	functions, memory := map[string]string{}, false
	for _, e := range c.m.Exports {
		if e.Kind == meter.Func {
			functions[e.Name] = e.Signature
		}
		memory = memory || e.Kind == meter.Memory && e.Name == "memory"
	}
	has := func(name, signature string) bool {
		got, ok := functions[name]
		if ok && got != signature {
			c.problem("exports %s as %s, it has to be %s", name, got, signature)
		}
		return ok
	}
	switch {
	case has("shoal_transform", "() -> i32"):
		c.r.ABI = ShoalV1
		c.r.init = has("_initialize", "() -> ()")
		c.r.setup = has("shoal_init", "() -> i32")
	case has("_start", "() -> ()"):
		c.r.ABI = WASI
	default:
		c.problem(`exports neither "_start" (a WASI command) nor "shoal_transform" (shoal_v1)`)
	}
	if !memory {
		c.problem(`does not export its memory as "memory"`)
	}
}

func (c *checker) memory(limit int64) {
	for _, m := range c.m.Memories {
		c.r.Memory = int64(m.Min) * pageSize
		if c.r.Memory > limit {
			c.problem("begins with %d bytes of memory, the limit is %d: raise it with --memory, or build with less", c.r.Memory, limit)
		}
	}
}
