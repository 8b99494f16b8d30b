package backendtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// listAll lists page by page, and checks what holds for every page. Prefixes are
// among the keys.
func (s *suite) listAll(t *testing.T, o core.RemoteListOptions) []string {
	t.Helper()
	var all []string
	for range 100_000 {
		before := 0
		if s.proxy != nil {
			before = s.proxy.Requests()
		}
		l, err := s.b.List(t.Context(), s.bucket, o)
		if err != nil {
			t.Fatalf("list %+v: %v", o, err)
		}
		if s.proxy != nil && s.proxy.Requests() != before+1 {
			t.Errorf("list %+v took %d requests, want 1", o, s.proxy.Requests()-before)
		}
		page := names(l)
		s.checkPage(t, o, l, page)
		all = append(all, page...)
		if !l.More {
			return all
		}
		if l.Next == "" || l.Next <= o.After {
			t.Fatalf("list %+v goes on after %q", o, l.Next)
		}
		o.After = l.Next
	}
	t.Fatalf("list %+v does not end", o)
	return nil
}

// names are a page's keys and prefixes in order.
func names(l core.RemoteListing) []string {
	var page []string
	for _, o := range l.Objects {
		page = append(page, o.Key)
	}
	page = append(page, l.Prefixes...)
	slices.Sort(page)
	return page
}

func (s *suite) checkPage(t *testing.T, o core.RemoteListOptions, l core.RemoteListing, page []string) {
	t.Helper()
	if most := s.b.Abilities().PageSize; len(page) > most || o.Max > 0 && len(page) > o.Max {
		t.Errorf("list %+v: a page of %d, want at most %d", o, len(page), most)
	}
	if !slices.IsSortedFunc(l.Objects, func(a, b core.RemoteObject) int { return strings.Compare(a.Key, b.Key) }) || !slices.IsSorted(l.Prefixes) {
		t.Errorf("list %+v: not in order: %q", o, page)
	}
	if len(slices.Compact(slices.Clone(page))) != len(page) {
		t.Errorf("list %+v: something twice: %q", o, page)
	}
	for _, obj := range l.Objects {
		if obj.Version == "" || obj.ETag == "" || obj.Modified.IsZero() || strings.Contains(obj.ETag, `"`) {
			t.Errorf("list %+v: got %+v, want a version, an ETag and a time", o, obj)
		}
	}
}

// model lists keys as they should be.
func model(keys []string, o core.RemoteListOptions) []string {
	var out []string
	for _, k := range keys {
		if !strings.HasPrefix(k, o.Prefix) || k <= o.After || o.Until != "" && k >= o.Until {
			continue
		}
		if o.Delimiter != "" {
			if i := strings.Index(k[len(o.Prefix):], o.Delimiter); i >= 0 {
				k = k[:len(o.Prefix)+i+len(o.Delimiter)]
			}
		}
		if len(out) == 0 || out[len(out)-1] != k {
			out = append(out, k)
		}
	}
	return out
}

// listed are the keys of the listings' bucket.
func listed() []string {
	keys := []string{
		"a", "a-b", "a.b", "a/1", "a/2", "a/b/c", "a/b/d", "a0", "ab", "b/x", "b/y/z", "c", "d e", "d/e", "dé", "d日本", "d🐟", "e+f", "e%20f", "f&<g>",
		"B", "Z/z", "zz/1", "zz/2", "zz/3", "zz/4", "zz/5", "~",
	}
	for i := range 25 {
		keys = append(keys, fmt.Sprintf("n/%03d", i))
	}
	slices.Sort(keys)
	return keys
}

// seedAll puts small objects, several at a time.
func (s *suite) seedAll(t *testing.T, keys []string) (kept []string) {
	t.Helper()
	var wg sync.WaitGroup
	work := make(chan string)
	for range 4 {
		wg.Go(func() {
			for key := range work {
				s.seed(t, key, []byte("content of "+key))
			}
		})
	}
	for _, key := range keys {
		if s.o.CannotHold != nil && s.o.CannotHold(key) != "" {
			continue
		}
		work <- key
		kept = append(kept, key)
	}
	close(work)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return kept
}

// wantNoList checks that what has no listings says so.
func (s *suite) wantNoList(t *testing.T) bool {
	t.Helper()
	if !s.b.Abilities().NoList {
		return false
	}
	_, err := s.b.List(t.Context(), s.bucket, core.RemoteListOptions{Max: 10})
	wantErr(t, "list where there are no listings", err, errors.ErrUnsupported)
	return true
}

// dirs leaves out keys that a backend of directories cannot hold beside others.
func (s *suite) fits(t *testing.T, keys []string) []string {
	t.Helper()
	if s.b.Abilities().ReadOnly {
		return keys
	}
	s.put(t, "probe", []byte("x"), core.RemotePut{})
	_, err := s.tryPut(t, "probe/below", []byte("x"), core.RemotePut{})
	for _, key := range []string{"probe/below", "probe"} {
		if e := s.b.Delete(t.Context(), s.bucket, key, core.RemoteCondition{}); e != nil && err == nil {
			t.Fatal(e)
		}
	}
	if err == nil {
		return keys
	}
	wantErr(t, "an object below another", err, core.ErrInvalid)
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool {
		i, _ := slices.BinarySearch(keys, k+"/")
		return i < len(keys) && strings.HasPrefix(keys[i], k+"/")
	})
}

func testListing(t *testing.T, s *suite) {
	if s.wantNoList(t) {
		return
	}
	if got := s.listAll(t, core.RemoteListOptions{}); len(got) > 0 {
		t.Errorf("a new bucket has %q", got)
	}
	keys := s.seedAll(t, s.fits(t, listed()))
	for _, prefix := range []string{"", "a", "a/", "a/b/", "n/", "n/01", "d", "no", "zz/3", "e%"} {
		for _, delimiter := range []string{"", "/"} {
			for _, after := range []string{"", "a", "a/", "a/1", "a/b", "a0", "b/x", "d日本", "n/003", "zz", "zz/2", "~", "~~"} {
				for _, until := range []string{"", "a0", "b", "n/010", "zz"} {
					if delimiter != "" && strings.Contains(until, "/") && !strings.HasPrefix(prefix, "n/") {
						continue // whether a prefix is below it cannot be told
					}
					for _, most := range []int{0, 3} {
						if most == 3 && (prefix == "no" || after == "~~") {
							continue
						}
						o := core.RemoteListOptions{Prefix: prefix, Delimiter: delimiter, After: after, Until: until, Max: most}
						got, want := s.listAll(t, o), model(keys, o)
						// Servers differ about a prefix that has what they begin after.
						within := func(k string) bool {
							return delimiter != "" && strings.HasSuffix(k, delimiter) && strings.HasPrefix(after, k)
						}
						got, want = slices.DeleteFunc(got, within), slices.DeleteFunc(want, within)
						if !slices.Equal(got, want) {
							t.Errorf("list %+v:\n got %q\nwant %q", o, got, want)
						}
					}
				}
			}
		}
		if t.Failed() {
			return // more of the same tells nothing new
		}
	}
	l, err := s.b.List(t.Context(), s.bucket, core.RemoteListOptions{Prefix: "n/", Max: 5})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range l.Objects {
		head := s.want(t, o.Key, []byte("content of "+o.Key))
		if head.Version != o.Version || head.ETag != o.ETag || head.Size != o.Size || o.Modified.Sub(head.Modified).Abs().Seconds() >= 1 {
			t.Errorf("listed as %+v, HEAD says %+v", o, head)
		}
		if o.MD5 != nil && string(o.MD5) != string(md5Of([]byte("content of "+o.Key))) {
			t.Errorf("listed with MD5 %x", o.MD5)
		}
	}
}

// A listing that says that it tells metadata tells all of it; one that was not asked
// tells none.
func testListingMeta(t *testing.T, s *suite) {
	if s.b.Abilities().NoList {
		return
	}
	want := map[string]map[string]string{"a": {"by": "somebody", "umlaut": "ä"}, "b": nil, "c": {"x": "1"}}
	for key, meta := range want {
		s.put(t, key, []byte(key), core.RemotePut{Meta: meta, Headers: map[string]string{"Expires": "never"}})
	}
	for _, ask := range []bool{true, false} {
		l, err := s.b.List(t.Context(), s.bucket, core.RemoteListOptions{Max: 10, Meta: ask})
		if err != nil || len(l.Objects) != len(want) {
			t.Fatalf("got %+v, %v", l, err)
		}
		for _, o := range l.Objects {
			if l.Meta && !maps.Equal(o.Meta, want[o.Key]) || !l.Meta && o.Meta != nil {
				t.Errorf("%s: listed with %v (asked: %v, told: %v), want %v", o.Key, o.Meta, ask, l.Meta, want[o.Key])
			}
		}
		if l.Meta && !ask {
			t.Error("metadata nobody asked for")
		}
	}
}

// Pages are full, and the last says that it is.
func testListingPages(t *testing.T, s *suite) {
	var keys []string
	for i := range 40 {
		keys = append(keys, fmt.Sprintf("p%02d/%s", i/4, strings.Repeat("k", 1+i%4)))
	}
	s.seedAll(t, keys)
	for _, most := range []int{1, 7, 10, 39, 40, 41} {
		pages := 0
		for o := (core.RemoteListOptions{Max: most}); ; pages++ {
			l, err := s.b.List(t.Context(), s.bucket, o)
			if err != nil {
				t.Fatal(err)
			}
			if n, left := len(l.Objects), len(keys)-pages*most; n != min(most, left) {
				t.Errorf("pages of %d: page %d has %d keys", most, pages, n)
			}
			if !l.More {
				break
			}
			if last := l.Objects[len(l.Objects)-1].Key; l.Next != last {
				t.Errorf("pages of %d: a page that ends with %q goes on after %q", most, last, l.Next)
			}
			o.After = l.Next
		}
		if want := (len(keys) - 1) / most; pages != want {
			t.Errorf("pages of %d: %d pages and one more, want %d", most, pages, want)
		}
	}
	// What is written while a listing goes on does not disturb what was there.
	if s.b.Abilities().ReadOnly {
		return
	}
	o := core.RemoteListOptions{Max: 10}
	var got []string
	for i := 0; ; i++ {
		l, err := s.b.List(t.Context(), s.bucket, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, obj := range l.Objects {
			if !strings.HasSuffix(obj.Key, "new") {
				got = append(got, obj.Key)
			}
		}
		if !l.More {
			break
		}
		s.put(t, fmt.Sprintf("p%02d/new", i), []byte("x"), core.RemotePut{})
		if err := s.b.Delete(t.Context(), s.bucket, l.Next, core.RemoteCondition{}); err != nil {
			t.Fatal(err)
		}
		o.After = l.Next
	}
	if !slices.Equal(got, keys) {
		t.Errorf("while others write: got %q, want %q", got, keys)
	}
}
