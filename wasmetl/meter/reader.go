package meter

import (
	"fmt"
	"unicode/utf8"

	"github.com/shoalstore/shoal/core"
)

// Error says what is wrong with a module and where. It is [core.ErrInvalid], or
// [core.ErrTooLarge] where a limit was passed.
type Error struct {
	Offset int // in the module, in bytes
	Reason string
	kind   error
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("wasm module, offset %#x: %s", e.Offset, e.Reason)
}

// Unwrap returns the sentinel that the error is.
func (e *Error) Unwrap() error { return e.kind }

// reader reads WebAssembly's binary primitives. The first error sticks: from
// then on all reads give zero, and the reader is at its end.
type reader struct {
	b    []byte
	off  int
	base int // offset of b in the module
	err  *Error
}

func (r *reader) fail(kind error, format string, args ...any) {
	if r.err == nil {
		r.err = &Error{Offset: r.base + r.off, Reason: fmt.Sprintf(format, args...), kind: kind}
	}
	r.off = len(r.b)
}

func (r *reader) invalid(format string, args ...any) { r.fail(core.ErrInvalid, format, args...) }

func (r *reader) limit(what string, got, limit uint64) {
	r.fail(core.ErrTooLarge, "%d %s, more than the limit of %d", got, what, limit)
}

func (r *reader) done() bool { return r.off >= len(r.b) }

func (r *reader) byte() byte {
	if r.off >= len(r.b) {
		r.invalid("unexpected end")
		return 0
	}
	c := r.b[r.off]
	r.off++
	return c
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b)-r.off {
		r.invalid("unexpected end: %d bytes wanted, %d left", n, len(r.b)-r.off)
		return nil
	}
	p := r.b[r.off : r.off+n : r.off+n]
	r.off += n
	return p
}

// u32 reads an unsigned LEB128 of at most 32 bits.
func (r *reader) u32() uint32 {
	if r.off < len(r.b) && r.b[r.off] < 0x80 {
		r.off++
		return uint32(r.b[r.off-1])
	}
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		if r.err != nil {
			return 0
		}
		if shift == 28 && c > 0x0f {
			break
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	r.invalid("integer too long")
	return 0
}

// signed reads a signed LEB128 of at most bits bits.
func (r *reader) signed(bits int) int64 {
	var v int64
	for shift := 0; shift < bits; shift += 7 {
		c := r.byte()
		if r.err != nil {
			return 0
		}
		v |= int64(c&0x7f) << shift
		if c >= 0x80 {
			continue
		}
		if shift+7 < 64 && c&0x40 != 0 {
			v |= -1 << (shift + 7)
		}
		return v
	}
	r.invalid("integer too long")
	return 0
}

// count reads the length of a vector whose elements take at least a byte each.
func (r *reader) count(what string, limit uint32) int {
	n := r.u32()
	if r.err != nil {
		return 0
	}
	if n > limit {
		r.limit(what, uint64(n), uint64(limit))
		return 0
	}
	if int(n) > len(r.b)-r.off {
		r.invalid("%d %s in %d bytes", n, what, len(r.b)-r.off)
		return 0
	}
	return int(n)
}

// sized reads a length and gives a reader of that many bytes.
func (r *reader) sized() *reader {
	n := r.u32()
	base := r.base + r.off
	if n > 1<<31-1 {
		r.invalid("length %d", n)
	}
	return &reader{b: r.bytes(int(n)), base: base}
}

// nested takes over the error of a reader that sized gave, and says that
// everything was read.
func (r *reader) nested(n *reader, what string) {
	if n.err == nil && !n.done() {
		n.invalid("%d bytes left over at the end of %s", len(n.b)-n.off, what)
	}
	if n.err != nil && r.err == nil {
		r.err = n.err
		r.off = len(r.b)
	}
}

func (r *reader) name(what string, limit int) string {
	n := r.u32()
	if r.err == nil && int64(n) > int64(limit) {
		r.limit("bytes in "+what, uint64(n), uint64(limit))
	}
	if r.err != nil {
		return ""
	}
	p := r.bytes(int(n))
	if r.err == nil && !utf8.Valid(p) {
		r.invalid("%s is not UTF-8", what)
	}
	return string(p)
}

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendS32(b []byte, v int32) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
