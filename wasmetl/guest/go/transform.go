//go:build wasip1

package transform

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"unsafe"
)

//go:wasmimport shoal_v1 read
func hostRead(p unsafe.Pointer, n uint32) int32

//go:wasmimport shoal_v1 write
func hostWrite(p unsafe.Pointer, n uint32) int32

//go:wasmimport shoal_v1 get
func hostGet(key unsafe.Pointer, keyLen uint32, p unsafe.Pointer, capacity uint32) int32

//go:wasmimport shoal_v1 set
func hostSet(key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32) int32

//go:wasmimport shoal_v1 emit
func hostEmit(name unsafe.Pointer, n uint32) int32

//go:wasmimport shoal_v1 drop
func hostDrop() int32

//go:wasmimport shoal_v1 log
func hostLog(level int32, p unsafe.Pointer, n uint32)

//go:wasmimport shoal_v1 fail
func hostFail(code int32, p unsafe.Pointer, n uint32)

// Errors of the host's functions.
var (
	ErrCanceled   = errors.New("shoal: canceled")
	ErrIO         = errors.New("shoal: input or output failed")
	ErrBadPointer = errors.New("shoal: bad pointer")
	ErrNoSuchKey  = errors.New("shoal: no such key")
	ErrLimit      = errors.New("shoal: limit passed")
	ErrInvalid    = errors.New("shoal: invalid")
)

// ErrDrop, returned by a handler that has not written anything, drops the object.
var ErrDrop = errors.New("drop this object")

func check(code int32) error {
	switch {
	case code >= 0:
		return nil
	case code == -1:
		return ErrCanceled
	case code == -2:
		return ErrIO
	case code == -3:
		return ErrBadPointer
	case code == -4:
		return ErrNoSuchKey
	case code == -5:
		return ErrLimit
	case code == -6:
		return ErrInvalid
	}
	return fmt.Errorf("shoal: code %d", code)
}

func pointer(b []byte) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))
}

func text(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

// handler is the program's one transform.
var handler func(r io.Reader, w io.Writer) error

// Handle says what to do with an object. It is called once, by an init function.
// The handler's error is the object's; its text is shown to users.
func Handle(f func(r io.Reader, w io.Writer) error) { handler = f }

//go:wasmexport shoal_transform
func transform() int32 {
	err := errors.New("the module calls no transform.Handle in an init function")
	if handler != nil {
		err = handler(input{}, output{})
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrDrop):
		if err = Drop(); err == nil {
			return 0
		}
	}
	p, n := text(err.Error())
	hostFail(1, p, n)
	return -1
}

type input struct{}

func (input) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n := hostRead(pointer(b))
	if n == 0 {
		return 0, io.EOF
	}
	if err := check(n); err != nil {
		return 0, err
	}
	return int(n), nil
}

type output struct{}

func (output) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := check(hostWrite(pointer(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// get gives a value that the host has.
func get(key string) (string, bool) {
	k, kn := text(key)
	b := make([]byte, 256)
	for {
		p, capacity := pointer(b)
		n := hostGet(k, kn, p, capacity)
		if n < 0 {
			return "", false
		}
		if int(n) <= len(b) {
			return string(b[:n]), true
		}
		b = make([]byte, n)
	}
}

// Name is the object's name, Bucket where it is.
func Name() string {
	name, _ := get("name")
	return name
}

// Bucket is the name of the object's bucket.
func Bucket() string {
	bucket, _ := get("bucket")
	return bucket
}

// Size is the object's size in bytes, -1 if it is not known.
func Size() int64 {
	text, ok := get("size")
	size, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil {
		return -1
	}
	return size
}

// ContentType is the object's.
func ContentType() string {
	t, _ := get("content-type")
	return t
}

// Member is the name within an archive whose members are transformed, or "".
func Member() string {
	m, _ := get("member")
	return m
}

// Arg is an argument, given by --arg or in the request.
func Arg(name string) (string, bool) { return get("arg:" + name) }

// Meta is an entry of the object's user metadata.
func Meta(name string) (string, bool) { return get("meta:" + name) }

func set(key, value string) error {
	k, kn := text(key)
	v, vn := text(value)
	return check(hostSet(k, kn, v, vn))
}

// SetContentType says what the current output is, before its first byte.
func SetContentType(t string) error { return set("content-type", t) }

// SetExt gives the current output another extension, before its first byte.
func SetExt(ext string) error { return set("ext", ext) }

// SetMeta gives the current output user metadata, before its first byte.
func SetMeta(name, value string) error { return set("meta:"+name, value) }

// Emit begins a further output: what is written from now on is in the object of
// that name.
func Emit(name string) error { return check(hostEmit(text(name))) }

// Drop says that there is to be no output for this object.
func Drop() error { return check(hostDrop()) }

// Level is how important a line of the log is.
type Level int32

// The levels.
const (
	Debug Level = iota
	Info
	Warn
	Error
)

// Log adds a line to the object's log, whose end is kept with failures.
func Log(level Level, format string, args ...any) {
	p, n := text(fmt.Sprintf(format, args...))
	hostLog(int32(level), p, n)
}
