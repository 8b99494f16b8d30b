package filebackend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shoalstore/shoal/core"
)

// attribute is the extended attribute that has what a file itself does not tell.
const attribute = "user.shoal"

// maxAttribute is the most that is read of one; Linux's own limit.
const maxAttribute = 64 << 10

// smallAttribute is a size for which there is room wherever there are attributes, so that
// ENOSPC means a full disk.
const smallAttribute = 2 << 10

// attributes are the attribute's content, as JSON.
type attributes struct {
	Headers map[string]string `json:"headers,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	Tags    map[string]string `json:"tags,omitempty"`
	// MD5 is that of the content as long as the file has the version Of, which
	// others change who write into it.
	MD5 []byte             `json:"md5,omitempty"`
	Of  core.RemoteVersion `json:"of,omitempty"`
}

func (a *attributes) empty() bool {
	return len(a.Headers)+len(a.Meta)+len(a.Tags)+len(a.MD5) == 0
}

// describe adds the attribute to an object.
func (a *attributes) describe(o *core.RemoteObject) {
	o.Headers, o.Meta, o.Tags = maps.Clone(a.Headers), maps.Clone(a.Meta), maps.Clone(a.Tags)
	if a.Of == o.Version {
		o.MD5 = bytes.Clone(a.MD5)
	}
}

// control calls f with the file's descriptor.
func control(file *os.File, f func(fd int) error) error {
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := c.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// readAttributes reads the attribute; what has none, or one of somebody else, has
// an empty one.
func readAttributes(file *os.File) (a attributes, err error) {
	buf := make([]byte, 4<<10)
	var n int
	for {
		err = control(file, func(fd int) (err error) {
			n, err = unix.Fgetxattr(fd, attribute, buf)
			return err
		})
		if !errors.Is(err, unix.ERANGE) || len(buf) >= maxAttribute {
			break
		}
		buf = make([]byte, maxAttribute)
	}
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return a, nil
	}
	if err != nil {
		return a, fmt.Errorf("attribute %s: %w", attribute, err)
	}
	if json.Unmarshal(buf[:n], &a) != nil {
		return attributes{}, nil
	}
	return a, nil
}

// writeAttributes writes the attribute, and says whether the file system keeps it.
func writeAttributes(file *os.File, a attributes) (kept bool, err error) {
	if a.empty() {
		return true, nil
	}
	b, err := json.Marshal(a)
	if err != nil {
		return false, fmt.Errorf("attribute %s: %w", attribute, err)
	}
	err = control(file, func(fd int) error { return unix.Fsetxattr(fd, attribute, b, 0) })
	switch {
	case errors.Is(err, unix.ENOTSUP):
		return false, nil
	case errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ERANGE) || errors.Is(err, unix.ENOSPC) && len(b) > smallAttribute:
		return false, fmt.Errorf("metadata of %d bytes: the file system keeps less with a file: %w: %w", len(b), core.ErrInvalid, err)
	case err != nil:
		return false, fmt.Errorf("attribute %s: %w", attribute, err)
	}
	return true, nil
}
