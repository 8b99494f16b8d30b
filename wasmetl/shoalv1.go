package wasmetl

import (
	"strings"
	"unicode/utf8"

	"github.com/tetratelabs/wazero/api"
)

// Codes that host functions return to guests.
const (
	codeBadPointer = -3
	codeNoSuchKey  = -4
	codeLimit      = -5
	codeInvalid    = -6
)

// Limits of what a guest says of an output.
const (
	maxKey     = 1 << 10
	maxValue   = 8 << 10
	maxMeta    = 16 << 10 // all of an output
	maxName    = 1 << 10
	maxMessage = 4 << 10
)

// shoalFunction is a function of shoal_v1. All its parameters are i32.
type shoalFunction struct {
	name   string
	arity  int
	result bool
	object bool // is about an object, so that it cannot be called by shoal_init
	do     func(c *call, mem api.Memory, args []uint64) int32
}

func shoalFunctions() []shoalFunction {
	return []shoalFunction{
		{"read", 2, true, true, shoalRead},
		{"write", 2, true, true, shoalWrite},
		{"get", 4, true, false, shoalGet},
		{"set", 4, true, true, shoalSet},
		{"emit", 2, true, true, shoalEmit},
		{"drop", 0, true, true, func(c *call, _ api.Memory, _ []uint64) int32 { return c.drop() }},
		{"log", 3, false, false, shoalLog},
		{"fail", 3, false, false, shoalFail},
	}
}

func (f shoalFunction) params() []api.ValueType {
	types := make([]api.ValueType, f.arity)
	for i := range types {
		types[i] = api.ValueTypeI32
	}
	return types
}

func (f shoalFunction) results() []api.ValueType {
	if f.result {
		return []api.ValueType{api.ValueTypeI32}
	}
	return nil
}

func (f shoalFunction) signature() string {
	params := strings.TrimSuffix(strings.Repeat("i32, ", f.arity), ", ")
	if f.result {
		return "(" + params + ") -> i32"
	}
	return "(" + params + ") -> ()"
}

// slice is the guest's memory from pointer on. A guest without a memory has none.
func slice(mem api.Memory, pointer, length uint64) ([]byte, bool) {
	if mem == nil {
		return nil, false
	}
	return mem.Read(uint32(pointer), uint32(length))
}

// text reads a short string from the guest.
func text(mem api.Memory, pointer, length uint64, limit uint32) (string, int32) {
	if uint32(length) > limit {
		return "", codeLimit
	}
	b, ok := slice(mem, pointer, length)
	if !ok {
		return "", codeBadPointer
	}
	if !utf8.Valid(b) {
		return "", codeInvalid
	}
	return string(b), 0
}

func shoalRead(c *call, mem api.Memory, args []uint64) int32 {
	p, ok := slice(mem, args[0], args[1])
	switch {
	case !ok:
		return codeBadPointer
	case len(p) == 0 || int32(len(p)) < 0:
		return codeInvalid
	}
	return int32(c.read(p))
}

func shoalWrite(c *call, mem api.Memory, args []uint64) int32 {
	p, ok := slice(mem, args[0], args[1])
	switch {
	case !ok:
		return codeBadPointer
	case int32(len(p)) < 0 || c.dropped:
		return codeInvalid
	}
	c.write(p)
	return int32(len(p))
}

func shoalGet(c *call, mem api.Memory, args []uint64) int32 {
	key, code := text(mem, args[0], args[1], maxKey)
	if code != 0 {
		return code
	}
	into, ok := slice(mem, args[2], args[3])
	if !ok {
		return codeBadPointer
	}
	value, ok := c.get(key)
	if !ok {
		return codeNoSuchKey
	}
	copy(into, value)
	return int32(len(value))
}

func shoalSet(c *call, mem api.Memory, args []uint64) int32 {
	key, code := text(mem, args[0], args[1], maxKey)
	if code != 0 {
		return code
	}
	value, code := text(mem, args[2], args[3], maxValue)
	if code != 0 {
		return code
	}
	return c.set(key, value)
}

func shoalEmit(c *call, mem api.Memory, args []uint64) int32 {
	name, code := text(mem, args[0], args[1], maxName)
	switch {
	case code == codeBadPointer:
		return code
	case code != 0 || !validName(name):
		c.fail(className, 0, "an output's name has to be relative, in UTF-8, at most 1 KiB long, without empty, \".\" or \"..\" elements and control characters")
	}
	return c.emit(name)
}

func validName(name string) bool {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return false
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element == "." || element == ".." {
			return false
		}
	}
	return true
}

func shoalLog(c *call, mem api.Memory, args []uint64) int32 {
	if p, ok := slice(mem, args[1], args[2]); ok {
		level := [...]string{"debug: ", "info: ", "warn: ", "error: "}[min(uint32(args[0]), 3)]
		c.log.write([]byte(level))
		c.log.write(p)
		c.log.write([]byte("\n"))
	}
	return 0
}

func shoalFail(c *call, mem api.Memory, args []uint64) int32 {
	if c.said != nil {
		return 0
	}
	p, _ := slice(mem, args[1], args[2])
	c.said = failure(classError, int32(args[0]), "%s", strings.ToValidUTF8(string(p[:min(len(p), maxMessage)]), "\uFFFD"))
	return 0
}
