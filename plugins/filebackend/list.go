package filebackend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shoalstore/shoal/core"
)

// staleTemp is the age at which a temporary file is one that a dead process left.
const staleTemp = 24 * time.Hour

// List implements [core.Backend]. What is no key (names that are not UTF-8, links, devices)
// is left out.
func (b *Backend) List(ctx context.Context, bucket string, o core.RemoteListOptions) (core.RemoteListing, error) {
	none := core.RemoteListing{}
	r, err := b.root(ctx, bucket)
	if err != nil {
		return none, err
	}
	defer func() { _ = r.Close() }()
	w := &walk{ctx: ctx, b: b, bucket: bucket, r: r, o: o, most: o.Max}
	if w.most <= 0 || w.most > pageSize {
		w.most = pageSize
	}
	// Everything that begins with the prefix is in its directory.
	dir := ""
	if i := strings.LastIndexByte(o.Prefix, '/'); i >= 0 {
		dir = o.Prefix[:i+1]
	}
	if !walkable(dir) {
		return none, nil
	}
	err = w.start(dir)
	if err != nil && !errors.Is(err, errFull) {
		return none, fmt.Errorf("file: list %s: %w", bucket, err)
	}
	if !w.l.More {
		w.l.Next = ""
	}
	return w.l, nil
}

// walkable says whether a directory's path is one, so that objects can be in it.
func walkable(dir string) bool {
	return dir == "" || checkKey(strings.TrimSuffix(dir, "/")) == nil
}

// errFull ends a walk.
var errFull = errors.New("the page is full")

// walk goes through a bucket in order of keys.
type walk struct {
	ctx    context.Context // of the List
	b      *Backend
	bucket string
	r      *os.Root
	o      core.RemoteListOptions
	most   int
	l      core.RemoteListing
}

func (w *walk) start(dir string) error {
	name := strings.TrimSuffix(dir, "/")
	if name == "" {
		return w.dir(w.r, "")
	}
	err := plain(w.r, name+"/")
	var sub *os.Root
	if err == nil {
		sub, err = w.r.OpenRoot(name)
	}
	if err != nil {
		if err := readError("list", w.bucket, dir, err); !errors.Is(err, core.ErrNotFound) {
			return err
		}
		return nil
	}
	defer func() { _ = sub.Close() }()
	return w.dir(sub, dir)
}

// entry is a name in a directory, with a slash behind that of a directory: so their
// order is that of the keys.
type entry string

func (e entry) isDir() bool { return strings.HasSuffix(string(e), "/") }

// beyond says whether all keys that begin with p are left out because of After.
func (w *walk) beyond(p string) bool {
	return p < w.o.After && !strings.HasPrefix(w.o.After, p)
}

// dir lists a directory, whose path is "" or ends with a slash.
func (w *walk) dir(r *os.Root, at string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := w.b.dirs.read(r, w.bucket, at, w.b.o.Now())
	if err != nil {
		return err
	}
	// Begin at the first that can matter.
	from := max(w.o.Prefix, w.o.After)
	i := 0
	if rest, ok := strings.CutPrefix(from, at); ok {
		i, _ = slices.BinarySearchFunc(entries, rest, func(e entry, rest string) int {
			if e.isDir() && strings.HasPrefix(rest, string(e)) {
				return 0
			}
			return cmp.Compare(string(e), rest)
		})
	}
	for _, e := range entries[i:] {
		p := at + string(e)
		switch {
		case w.o.Until != "" && p >= w.o.Until:
			return errFull
		case strings.HasPrefix(p, w.o.Prefix) || e.isDir() && strings.HasPrefix(w.o.Prefix, p):
		case p > w.o.Prefix:
			return errFull
		default:
			continue
		}
		if e.isDir() {
			err = w.sub(r, e, p)
		} else {
			err = w.file(r, e, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// room makes sure that the page has some for one more.
func (w *walk) room(next string) error {
	if len(w.l.Objects)+len(w.l.Prefixes) < w.most {
		w.l.Next = next
		return nil
	}
	w.l.More = true
	return errFull
}

func (w *walk) file(r *os.Root, e entry, key string) error {
	if key <= w.o.After {
		return nil
	}
	if p, ok := w.rollUp(key); ok { // a delimiter within a name
		return w.prefix(p)
	}
	fi, err := r.Lstat(string(e))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !fi.Mode().IsRegular() {
		return nil // gone meanwhile, or replaced
	}
	if err != nil {
		return readError("list", w.bucket, key, err)
	}
	if err := w.room(key); err != nil {
		return err
	}
	w.l.Objects = append(w.l.Objects, object(key, fi))
	return nil
}

// rollUp is the prefix that a key is listed under.
func (w *walk) rollUp(key string) (string, bool) {
	if w.o.Delimiter == "" || !strings.HasPrefix(key, w.o.Prefix) {
		return "", false
	}
	i := strings.Index(key[len(w.o.Prefix):], w.o.Delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(w.o.Prefix)+i+len(w.o.Delimiter)], true
}

func (w *walk) prefix(p string) error {
	if n := len(w.l.Prefixes); n > 0 && w.l.Prefixes[n-1] == p {
		w.l.Next = max(w.l.Next, afterPrefix(p))
		return nil
	}
	if err := w.room(afterPrefix(p)); err != nil {
		return err
	}
	w.l.Prefixes = append(w.l.Prefixes, p)
	return nil
}

func (w *walk) sub(r *os.Root, e entry, at string) error {
	if w.beyond(at) {
		return nil
	}
	if p, ok := w.rollUp(at); ok {
		// It is listed if there is a key in it.
		is, err := w.hasKey(r, e, at)
		if err != nil || !is {
			return err
		}
		return w.prefix(p)
	}
	return w.open(r, e, at)
}

func (w *walk) open(r *os.Root, e entry, at string) error {
	sub, err := openDir(r, strings.TrimSuffix(string(e), "/"))
	if err != nil {
		return readError("list", w.bucket, at, err)
	}
	if sub == nil {
		return nil
	}
	defer func() { _ = sub.Close() }()
	return w.dir(sub, at)
}

// openDir opens a directory; nil if it is none any more.
func openDir(r *os.Root, name string) (*os.Root, error) {
	fi, err := r.Lstat(name)
	if err == nil && !fi.IsDir() {
		return nil, nil // replaced meanwhile, by a link perhaps
	}
	var sub *os.Root
	if err == nil {
		sub, err = r.OpenRoot(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // gone meanwhile
	}
	return sub, err
}

// hasKey says whether there is a key in a directory that the listing is about.
func (w *walk) hasKey(r *os.Root, e entry, at string) (bool, error) {
	if strings.HasPrefix(w.o.After, at) || strings.HasPrefix(w.o.Until, at) {
		one := &walk{ctx: w.ctx, b: w.b, bucket: w.bucket, r: w.r, most: 1}
		one.o = core.RemoteListOptions{Prefix: at, After: w.o.After, Until: w.o.Until}
		err := one.open(r, e, at)
		if errors.Is(err, errFull) {
			err = nil
		}
		return len(one.l.Objects) > 0, err
	}
	is, err := anyKey(w.ctx, r, strings.TrimSuffix(string(e), "/"), at)
	if err != nil && w.ctx.Err() == nil {
		err = readError("list", w.bucket, at, err)
	}
	return is, err
}

// anyKey says whether there is a key in a directory, and reads no more of it than
// it needs to.
func anyKey(ctx context.Context, r *os.Root, name, at string) (bool, error) {
	sub, err := openDir(r, name)
	if err != nil || sub == nil {
		return false, err
	}
	defer func() { _ = sub.Close() }()
	d, err := sub.Open(".")
	if err != nil {
		return false, err
	}
	defer func() { _ = d.Close() }()
	var dirs []string
	for {
		list, err := d.ReadDir(128)
		for _, e := range list {
			switch entry := entryOf(e, at); {
			case entry == "":
			case entry.isDir():
				dirs = append(dirs, e.Name())
			default:
				return true, nil
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return false, err
		}
	}
	for _, dir := range dirs {
		if is, err := anyKey(ctx, sub, dir, at+dir+"/"); is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// entryOf is what a directory's entry can be of a key; "" for nothing.
func entryOf(e fs.DirEntry, at string) entry {
	name := e.Name()
	switch {
	case strings.HasPrefix(name, tempPrefix) || !utf8.ValidString(name) || len(at)+len(name) > core.MaxKey:
		return ""
	case e.IsDir():
		return entry(name + "/")
	case e.Type().IsRegular():
		return entry(name)
	}
	return ""
}

// readDir reads a directory's entries in order of the keys.
func readDir(r *os.Root, at string, now time.Time) ([]entry, error) {
	d, err := r.Open(".")
	if err != nil {
		return nil, err
	}
	list, err := d.ReadDir(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	var entries []entry
	for _, e := range list {
		if entry := entryOf(e, at); entry != "" {
			entries = append(entries, entry)
		} else if name := e.Name(); strings.HasPrefix(name, tempPrefix) {
			if fi, err := r.Lstat(name); err == nil && fi.Mode().IsRegular() && now.Sub(fi.ModTime()) > staleTemp {
				_ = r.Remove(name) // of a process that died
			}
		}
	}
	slices.Sort(entries)
	return entries, nil
}

// afterPrefix is the highest key that begins with prefix, so that a listing that goes
// on after it does not begin with the same prefix again.
func afterPrefix(prefix string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for _, r := range []string{"\U0010ffff", "\uffff", "\u07ff", "\x7f"} {
		for b.Len()+len(r) <= core.MaxKey {
			b.WriteString(r)
		}
	}
	return b.String()
}
