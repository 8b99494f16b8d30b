package objectstest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// naive lists by the definition: all keys above after with the prefix, those
// with the delimiter behind the prefix as one group each.
func naive(keys []string, o core.ListOptions) (out []string) {
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k, o.Prefix)
		if !ok || k <= o.After {
			continue
		}
		item := k
		if i := strings.Index(rest, o.Delimiter); o.Delimiter != "" && i >= 0 {
			item = "group " + o.Prefix + rest[:i+len(o.Delimiter)]
		}
		if len(out) == 0 || out[len(out)-1] != item {
			out = append(out, item)
		}
	}
	return out
}

// items merges the two lists of a page into their one order.
func items(l core.Listing) []string {
	type item struct{ sort, name string }
	var all []item
	for _, o := range l.Objects {
		all = append(all, item{o.Key, o.Key})
	}
	for _, p := range l.Prefixes {
		all = append(all, item{p, "group " + p})
	}
	slices.SortFunc(all, func(a, b item) int { return strings.Compare(a.sort, b.sort) })
	out := make([]string, len(all))
	for i, a := range all {
		out[i] = a.name
	}
	return out
}

// pages lists to the end and returns everything in order.
func (s *suite) pages(t *testing.T, o core.ListOptions) (out []string) {
	t.Helper()
	for range 10000 {
		l, err := s.objects.List(t.Context(), s.bucket, o)
		if err != nil {
			t.Fatalf("list %+v: %v", o, err)
		}
		page := items(l)
		if len(page) > o.Max {
			t.Fatalf("list %+v: a page of %d", o, len(page))
		}
		out = append(out, page...)
		if !l.More {
			return out
		}
		if l.Next <= o.After {
			t.Fatalf("list %+v: next %q does not lead on", o, l.Next)
		}
		o.After = l.Next
	}
	t.Fatalf("list %+v: does not end", o)
	return nil
}

func testListing(t *testing.T, s *suite) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(from []string) string { return from[rnd.IntN(len(from))] }
	pieces := []string{"a", "b", "/", "//", "a/", "b/", ".", "0", " ", "ä", "\x01", "\uffff", "\U0001F41F"}
	set := map[string]bool{}
	for len(set) < 120 {
		var k strings.Builder
		for range 1 + rnd.IntN(5) {
			k.WriteString(pick(pieces))
		}
		set[k.String()] = true
	}
	var keys []string
	for k := range set {
		keys = append(keys, k)
		s.put(t, k, []byte(k))
	}
	slices.Sort(keys)
	prefixes := append([]string{"", "", "zzz"}, pieces...)
	for range 300 {
		o := core.ListOptions{
			Prefix:    pick(prefixes),
			Delimiter: pick([]string{"", "/", "/", "//", "a", "b/", "\uffff"}),
			Max:       1 + rnd.IntN(9),
		}
		switch rnd.IntN(4) {
		case 0:
			o.After = pick(keys)
		case 1:
			o.After = pick(prefixes)
		}
		if got, want := s.pages(t, o), naive(keys, o); !slices.Equal(got, want) {
			t.Fatalf("list %+v: got %q, want %q", o, got, want)
		}
	}

	l, err := s.objects.List(t.Context(), s.bucket, core.ListOptions{Max: 1000})
	if err != nil || len(l.Objects) != len(keys) || l.More {
		t.Fatalf("list: got %d, more %v, %v; want %d", len(l.Objects), l.More, err, len(keys))
	}
	for _, o := range l.Objects {
		info := s.want(t, o.Key, []byte(o.Key))
		if o.Size != info.Size || o.ETag != info.ETag || !o.Modified.Equal(info.Modified) || o.Version != info.Version {
			t.Errorf("list: %q has size %d, ETag %s, modified %s; get said %d, %s, %s",
				o.Key, o.Size, o.ETag, o.Modified, info.Size, info.ETag, info.Modified)
		}
		if o.Inline != nil || o.Extents != nil {
			t.Errorf("list: %q comes with its data's places", o.Key)
		}
	}
	// What is deleted between two pages does not come, what is added behind
	// the page does.
	l, err = s.objects.List(t.Context(), s.bucket, core.ListOptions{Max: 60})
	if err != nil || !l.More {
		t.Fatalf("list: got more %v, %v", l.More, err)
	}
	gone := keys[len(keys)-1]
	s.put(t, "\U0001F41Fzz", []byte("new"))
	if got := s.pages(t, core.ListOptions{After: l.Next, Max: 1000}); !slices.Contains(got, "\U0001F41Fzz") {
		t.Errorf("list: got %q, want the new key among them", got)
	}
	if err := s.objects.Delete(t.Context(), s.bucket, gone, core.Conditions{}, core.NewRequestID()); err != nil {
		t.Fatalf("delete: %v", err)
	}
	rest := s.pages(t, core.ListOptions{After: l.Next, Max: 1000})
	if slices.Contains(rest, gone) || !slices.Contains(rest, "\U0001F41Fzz") {
		t.Errorf("list: got %q, want it without %q and with the new key", rest, gone)
	}
	if got, want := fmt.Sprint(len(l.Objects)+len(rest)), fmt.Sprint(len(keys)); got != want {
		t.Errorf("list: got %s in two pages, want %s", got, want)
	}
}
