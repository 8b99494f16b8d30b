package gcsbackend

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cloud.google.com/go/storage"
	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
)

// TempPrefix is where uploads in parts keep their objects: the parts, and what is
// composed of them on the way. Nobody else reads, writes or lists there.
const TempPrefix = ".shoal-uploads/"

// atATime is how many requests of one call are under way.
const atATime = 8

func hidden(key string) bool { return strings.HasPrefix(key, TempPrefix) }

// readable holds what is true of every key.
func readable(bucket, key string) error {
	if err := core.ValidateKey(key); err != nil {
		return fmt.Errorf("gs: %s: %w", bucket, err)
	}
	if hidden(key) || key == "." || key == ".." {
		return fmt.Errorf("gs: %s/%s: no object has such a name: %w", bucket, key, core.ErrNotFound)
	}
	return nil
}

// writable holds Google's rules for names, and keeps clear of TempPrefix.
func writable(bucket, key string) error {
	if err := core.ValidateKey(key); err != nil {
		return fmt.Errorf("gs: %s: %w", bucket, err)
	}
	why := ""
	switch {
	case strings.ContainsAny(key, "\r\n"):
		why = "CR and LF are not allowed there"
	case key == "." || key == "..":
		why = "is not allowed there"
	case strings.HasPrefix(key, ".well-known/acme-challenge/"):
		why = "is not allowed there"
	case hidden(key):
		why = "is for uploads under way"
	default:
		return nil
	}
	return fmt.Errorf("gs: %s: key %.100q: %s: %w", bucket, key, why, core.ErrInvalid)
}

// An upload is what its name says: a random number, in hex, and what the object
// shall carry, so that nothing has to be asked for at the end.
type upload struct {
	id    string
	key   string
	attrs storage.ObjectAttrs
}

// uploadText is the second part of an upload's name, as JSON.
type uploadText struct {
	Key      string            `json:"key"`
	Type     string            `json:"type,omitempty"`
	Encoding string            `json:"encoding,omitempty"`
	Language string            `json:"language,omitempty"`
	Disposal string            `json:"disposition,omitempty"`
	Cache    string            `json:"cache,omitempty"`
	Class    string            `json:"class,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func (u upload) String() string {
	text, _ := json.Marshal(uploadText{ // strings always have JSON
		u.key, u.attrs.ContentType, u.attrs.ContentEncoding, u.attrs.ContentLanguage, u.attrs.ContentDisposition,
		u.attrs.CacheControl, u.attrs.StorageClass, u.attrs.Metadata,
	})
	return u.id + "." + base64.RawURLEncoding.EncodeToString(text)
}

func parseUpload(s, key string) (upload, error) {
	id, rest, _ := strings.Cut(s, ".")
	b, err := hex.DecodeString(id)
	text, err2 := base64.RawURLEncoding.DecodeString(rest)
	var t uploadText
	if err3 := json.Unmarshal(text, &t); err != nil || err2 != nil || err3 != nil || len(b) != 16 || t.Key != key {
		return upload{}, fmt.Errorf("gs: upload %.64q: %w", s, core.ErrNoSuchUpload)
	}
	return upload{id: hex.EncodeToString(b), key: key, attrs: storage.ObjectAttrs{
		ContentType: t.Type, ContentEncoding: t.Encoding, ContentLanguage: t.Language, ContentDisposition: t.Disposal,
		CacheControl: t.Cache, StorageClass: t.Class, Metadata: t.Metadata,
	}}, nil
}

func (u upload) dir() string            { return TempPrefix + u.id + "/" }
func (u upload) part(number int) string { return fmt.Sprintf("%spart-%05d", u.dir(), number) }

// CreateUpload implements [core.RemoteUploader]. It makes no request.
func (b *Backend) CreateUpload(ctx context.Context, bucket, key string, o core.RemotePut) (string, error) {
	if err := writable(bucket, key); err != nil {
		return "", err
	}
	a, err := toGoogle(o.Headers, o.Meta, o.Tags)
	if err != nil {
		return "", err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return upload{hex.EncodeToString(id[:]), key, a}.String(), ctx.Err()
}

// PutPart implements [core.RemoteUploader].
func (b *Backend) PutPart(ctx context.Context, bucket, key, name string, number int, o core.RemotePut) (core.RemotePart, error) {
	u, err := parseUpload(name, key)
	if err != nil {
		return core.RemotePart{}, err
	}
	q := request{what: fmt.Sprintf("put part %d of %s/%s", number, bucket, key), write: true, missing: core.ErrNoSuchBucket}
	if number < 1 || number > maxParts {
		return core.RemotePart{}, fmt.Errorf("gs: %s: want 1 to %d: %w", q.what, maxParts, core.ErrInvalid)
	}
	o.If = core.RemoteCondition{}
	// The storage class is that of what is composed in the end: what lies in a colder
	// one for an hour costs as much as in a month.
	a, err := b.put(ctx, q, bucket, u.part(number), storage.ObjectAttrs{StorageClass: u.warm()}, o)
	if err != nil {
		return core.RemotePart{}, err
	}
	return core.RemotePart{Number: number, Size: a.Size, ETag: etag(a.MD5, a.Generation), Version: version(a.Generation, a.Metageneration)}, nil
}

// warm is the class of what is removed soon: that of the bucket, unless the
// object's is said.
func (u upload) warm() string {
	if u.attrs.StorageClass == "" {
		return ""
	}
	return "STANDARD"
}

// CompleteUpload implements [core.RemoteUploader]: it composes, in a tree where
// there are more than 32 parts. Only the last step touches the key. An object that
// was composed already is not composed again: its parts are gone.
func (b *Backend) CompleteUpload(ctx context.Context, bucket, key, name string, parts []core.RemotePart, c core.RemoteCondition) (core.RemoteObject, error) {
	u, err := parseUpload(name, key)
	if err != nil {
		return core.RemoteObject{}, err
	}
	if err := writable(bucket, key); err != nil {
		return core.RemoteObject{}, err
	}
	q := request{what: fmt.Sprintf("complete the upload of %s/%s", bucket, key), write: true, missing: core.ErrInvalidPart}
	sources, size, err := u.sources(q, parts)
	if err != nil {
		return core.RemoteObject{}, err
	}
	to, err := b.at(bucket, key, c)
	if err != nil {
		return core.RemoteObject{}, err
	}
	for level := 0; len(sources) > maxCompose; level++ {
		if sources, err = b.level(ctx, bucket, u, level, sources); err != nil {
			return core.RemoteObject{}, err
		}
	}
	made, err := b.compose(ctx, to, bucket, u.attrs, sources)
	if err != nil {
		return core.RemoteObject{}, b.unlessBucket(ctx, bucket, q.failed(err))
	}
	if made.Size != size {
		return core.RemoteObject{}, fmt.Errorf("gs: %s: the answer says %d bytes, the parts have %d: %w", q.what, made.Size, size, core.ErrUnknownOutcome)
	}
	// The object is there, whatever becomes of this. What is left AbortUpload
	// finds, or the bucket's lifecycle.
	_ = b.AbortUpload(ctx, bucket, key, name)
	return q.described(key, made)
}

// unlessBucket looks what a missing part means on a server that does not say.
func (b *Backend) unlessBucket(ctx context.Context, bucket string, err error) error {
	if errors.Is(err, core.ErrInvalidPart) {
		if gone := b.HeadBucket(ctx, bucket); errors.Is(gone, core.ErrNoSuchBucket) {
			return gone
		}
	}
	return err
}

// source is an object to compose, in one generation unless that is 0.
type source struct {
	name       string
	generation int64
}

// sources are the objects of the parts, in order, and their size.
func (u upload) sources(q request, parts []core.RemotePart) (sources []source, size int64, err error) {
	bad := func(format string, args ...any) ([]source, int64, error) {
		return nil, 0, fmt.Errorf("gs: "+q.what+": "+format+": %w", append(args, core.ErrInvalidPart)...)
	}
	if len(parts) == 0 {
		return bad("there are no parts")
	}
	parts = slices.SortedFunc(slices.Values(parts), func(x, y core.RemotePart) int { return cmp.Compare(x.Number, y.Number) })
	for i, p := range parts {
		if p.Number < 1 || p.Number > maxParts || i > 0 && parts[i-1].Number == p.Number {
			return bad("part %d: twice, or not 1 to %d", p.Number, maxParts)
		}
		at, ok := atVersion(p.Version)
		if !ok {
			return bad("part %d: no version %q", p.Number, p.Version)
		}
		size += p.Size
		sources = append(sources, source{u.part(p.Number), at.GenerationMatch})
	}
	return sources, size, nil
}

// level composes neighbours, each up to 32 of them, to objects on the way. Nothing
// that fails here touched the key.
func (b *Backend) level(ctx context.Context, bucket string, u upload, level int, sources []source) ([]source, error) {
	out := make([]source, (len(sources)+maxCompose-1)/maxCompose)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atATime)
	for i := range out {
		name := fmt.Sprintf("%slevel-%d-%05d", u.dir(), level, i)
		g.Go(func() error {
			of := sources[i*maxCompose : min((i+1)*maxCompose, len(sources))]
			q := request{what: fmt.Sprintf("compose parts of %s/%s", bucket, u.key), missing: core.ErrInvalidPart}
			a, err := b.compose(ctx, b.client.Bucket(bucket).Object(name), bucket, storage.ObjectAttrs{StorageClass: u.warm()}, of)
			if err != nil {
				return q.failed(err)
			}
			out[i] = source{name, a.Generation}
			return nil
		})
	}
	return out, g.Wait()
}

func (b *Backend) compose(ctx context.Context, to *storage.ObjectHandle, bucket string, a storage.ObjectAttrs, sources []source) (*storage.ObjectAttrs, error) {
	from := make([]*storage.ObjectHandle, len(sources))
	for i, s := range sources {
		from[i] = b.client.Bucket(bucket).Object(s.name)
		if s.generation != 0 {
			from[i] = from[i].Generation(s.generation)
		}
	}
	compose := to.ComposerFrom(from...)
	compose.ObjectAttrs = a
	return compose.Run(ctx)
}

// AbortUpload implements [core.RemoteUploader].
func (b *Backend) AbortUpload(ctx context.Context, bucket, key, name string) error {
	u, err := parseUpload(name, key)
	if err != nil {
		return nil //nolint:nilerr // there is no upload of that name, and that is no error
	}
	for after := ""; ; {
		entries, more, err := b.page(ctx, bucket, core.RemoteListOptions{Prefix: u.dir(), After: after, Max: pageSize})
		if err != nil || len(entries) == 0 {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(atATime)
		for _, e := range entries {
			g.Go(func() error {
				q := request{what: fmt.Sprintf("abort the upload of %s/%s", bucket, key), write: true, missing: core.ErrNotFound}
				err := q.failed(b.client.Bucket(bucket).Object(e.name).Delete(ctx))
				if errors.Is(err, core.ErrNotFound) {
					return nil
				}
				return err
			})
		}
		if err := g.Wait(); err != nil || !more {
			return err
		}
		after = entries[len(entries)-1].name
	}
}
