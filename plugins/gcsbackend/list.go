package gcsbackend

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// afterAll is behind every key of a prefix: the last character there is.
const afterAll = "\U0010FFFF"

// entry is a key or a prefix of a listing, and what is told of the key.
type entry struct {
	name   string
	prefix bool
	object core.RemoteObject
}

// List implements [core.Backend]: one request. A second one is made only if After
// lies within a common prefix: whether that is listed depends on what else is in it.
func (b *Backend) List(ctx context.Context, bucket string, o core.RemoteListOptions) (out core.RemoteListing, err error) {
	if o.Until != "" && o.After >= o.Until {
		return out, nil
	}
	want := o.Max
	if want <= 0 || want > pageSize {
		want = pageSize
	}
	var entries []entry
	from := o.After
	if p := prefixOf(o.After, o); p != "" {
		from = p + afterAll
		if o.After < from {
			rest, _, err := b.page(ctx, bucket, core.RemoteListOptions{Prefix: p, After: o.After, Until: o.Until, Max: 2})
			if err != nil {
				return out, err
			}
			if slices.ContainsFunc(rest, func(e entry) bool { return e.name > o.After }) {
				entries = append(entries, entry{name: p, prefix: true})
			}
		}
	}
	ask := want
	if from != "" {
		ask = min(want+1, pageSize) // offsets are inclusive: from itself may be there
	}
	found, more, err := b.page(ctx, bucket, core.RemoteListOptions{Prefix: o.Prefix, Delimiter: o.Delimiter, After: from, Until: o.Until, Max: ask, Meta: o.Meta})
	if err != nil {
		return out, err
	}
	found = slices.DeleteFunc(found, func(e entry) bool { return !e.prefix && e.name <= o.After })
	entries = append(entries, found...)
	if len(entries) > want {
		entries, more = entries[:want], true
	}
	for _, e := range entries {
		out.Next = e.name
		switch {
		case e.prefix:
			out.Next += afterAll
			if !hidden(e.name) {
				out.Prefixes = append(out.Prefixes, e.name)
			}
		case !hidden(e.name):
			out.Objects = append(out.Objects, e.object)
		}
	}
	if out.More, out.Meta = more, o.Meta; !more {
		out.Next = ""
	}
	return out, nil
}

// prefixOf is the common prefix that a key is in, "" if it is in none.
func prefixOf(key string, o core.RemoteListOptions) string {
	rest, ok := strings.CutPrefix(key, o.Prefix)
	if !ok || o.Delimiter == "" {
		return ""
	}
	i := strings.Index(rest, o.Delimiter)
	if i < 0 {
		return ""
	}
	return o.Prefix + rest[:i+len(o.Delimiter)]
}

// objectList is the answer to a listing (Cloud Storage JSON API, "Objects: list").
type objectList struct {
	Kind          string     `json:"kind"`
	NextPageToken string     `json:"nextPageToken"`
	Prefixes      []string   `json:"prefixes"`
	Items         []resource `json:"items"`
}

// page gets a page as the server gives it, in order; After is inclusive.
func (b *Backend) page(ctx context.Context, bucket string, o core.RemoteListOptions) (entries []entry, more bool, err error) {
	q := request{what: "list " + bucket, missing: core.ErrNoSuchBucket}
	u := b.base
	u.Path, u.RawPath = "/storage/v1/b/"+bucket+"/o", "/storage/v1/b/"+url.PathEscape(bucket)+"/o"
	fields := "name,size,generation,metageneration,updated,md5Hash,crc32c"
	if o.Meta {
		fields += ",metadata"
	}
	v := url.Values{
		"projection": {"noAcl"}, "maxResults": {strconv.Itoa(o.Max)}, "fields": {"kind,nextPageToken,prefixes,items(" + fields + ")"},
	}
	for name, value := range map[string]string{"prefix": o.Prefix, "delimiter": o.Delimiter, "startOffset": o.After, "endOffset": o.Until} {
		if value != "" {
			v.Set(name, value)
		}
	}
	u.RawQuery = v.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, false, fmt.Errorf("gs: %s: %w: %w", q.what, core.ErrInvalid, err)
	}
	res, err := b.http.Do(req)
	if err != nil {
		return nil, false, q.failed(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, false, q.failed(refused(res))
	}
	var list objectList
	if err := json.NewDecoder(http.MaxBytesReader(nil, res.Body, maxListing)).Decode(&list); err != nil {
		return nil, false, q.failed(fmt.Errorf("the answer is no listing: %w", err))
	}
	if list.Kind != "storage#objects" {
		return nil, false, q.failed(fmt.Errorf("the answer is no listing but of kind %.50q", list.Kind))
	}
	return list.entries(o), list.NextPageToken != "", nil
}

// maxListing is more than a page can have: 1,000 keys of 1 KiB with 8 KiB of metadata,
// escaped.
const maxListing = 64 << 20

func (l *objectList) entries(o core.RemoteListOptions) []entry {
	entries := make([]entry, 0, len(l.Items)+len(l.Prefixes))
	for i := range l.Items {
		e := entry{name: l.Items[i].Name, object: listed(l.Items[i].attrs())}
		if o.Meta {
			_, e.object.Meta, _ = fromGoogle(nil, l.Items[i].Metadata)
		}
		entries = append(entries, e)
	}
	for _, p := range l.Prefixes {
		entries = append(entries, entry{name: p, prefix: true})
	}
	slices.SortFunc(entries, func(x, y entry) int { return strings.Compare(x.name, y.name) })
	if l.NextPageToken != "" && len(entries) > o.Max {
		// Google counts prefixes as it does objects. fake-gcs-server (fakestorage,
		// ListObjectsWithOptionsPaginated) gives all prefixes at once, beside a page
		// of objects: what is behind the last of these is for the next page.
		last := len(entries) - 1
		for last > 0 && entries[last].prefix {
			last--
		}
		entries = entries[:last+1]
	}
	return entries
}
