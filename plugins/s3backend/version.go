package s3backend

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
)

// dated begins the versions of objects that have no ETag.
const dated = "mtime-"

// identify gives an object that has no ETag a version, made of when it was changed,
// to the second, and its size, which must be known by now. Gateways to file systems
// have such objects: files that did not come through them. AWS has none.
func (b *Backend) identify(o *core.RemoteObject) error {
	switch {
	case o.ETag != "":
		return nil
	case b.aws:
		return errors.New("the answer has no ETag")
	case o.Modified.IsZero():
		return errors.New("the answer has neither an ETag nor Last-Modified, so it does not say which version it is")
	}
	o.ETag = fmt.Sprintf("%s%d-%d", dated, o.Modified.Unix(), o.Size)
	o.Version = core.RemoteVersion(o.ETag)
	return nil
}

// sizeOf is the size that a version made by identify has in it, 0 of others.
func sizeOf(v core.RemoteVersion) int64 {
	rest, ok := strings.CutPrefix(string(v), dated)
	if !ok {
		return 0
	}
	size, err := strconv.ParseInt(rest[strings.LastIndexByte(rest, '-')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return size
}

// unmodified is the header of a copy from an object without an ETag, nil for others. A
// server may compare it with a time that has parts of the second that it tells.
func unmodified(o core.RemoteObject) *time.Time {
	if ifMatch(o.Version) != nil {
		return nil
	}
	t := o.Modified.Add(time.Second)
	return &t
}

// ifMatch is the header for a version, nil if no header can ask for it.
func ifMatch(v core.RemoteVersion) *string {
	if v == "" || strings.HasPrefix(string(v), dated) {
		return nil
	}
	q := `"` + string(v) + `"`
	return &q
}

// checkVersion refuses a version that no ETag has.
func checkVersion(v core.RemoteVersion) error {
	for _, c := range []byte(v) {
		if c <= ' ' || c == '"' || c >= 0x7f {
			return fmt.Errorf("version %q: not an ETag: %w", v, core.ErrInvalid)
		}
	}
	return nil
}

// condition makes the headers of a condition on a write. A version for which there is
// no header is looked at before the write instead.
func (b *Backend) condition(ctx context.Context, bucket, key string, allowed bool, c core.RemoteCondition) (match, noneMatch *string, err error) {
	switch {
	case c.IsZero():
		return nil, nil, nil
	case !allowed:
		return nil, nil, fmt.Errorf("conditions on writes: the server is not known to hold to them (setting: conditions): %w", errors.ErrUnsupported)
	case c.Absent && c.Version != "":
		return nil, nil, fmt.Errorf("condition: both absent and version %q: %w", c.Version, core.ErrInvalid)
	case c.Absent:
		all := "*"
		return nil, &all, nil
	}
	if err := checkVersion(c.Version); err != nil {
		return nil, nil, err
	}
	if match = ifMatch(c.Version); match != nil {
		return match, nil, nil
	}
	o, err := b.Head(ctx, bucket, key)
	if errors.Is(err, core.ErrNotFound) || err == nil && o.Version != c.Version {
		return nil, nil, fmt.Errorf("s3: %s/%q: version %s is not there any more: %w", bucket, key, c.Version, core.ErrPrecondition)
	}
	return nil, nil, err
}
