package job

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/shoalstore/shoal/core"
)

func TestExpand(t *testing.T) {
	for _, c := range []struct {
		template string
		want     []string
	}{
		{"", []string{""}},
		{"plain.tar", []string{"plain.tar"}},
		{"shard-{0001..0007..2}.tar", []string{"shard-0001.tar", "shard-0003.tar", "shard-0005.tar", "shard-0007.tar"}},
		{"{8..11}", []string{"8", "9", "10", "11"}},
		{"{08..11}", []string{"08", "09", "10", "11"}},
		{"{0..2..5}", []string{"0"}},
		{"a{1..2}b{0..1}c", []string{"a1b0c", "a1b1c", "a2b0c", "a2b1c"}},
	} {
		got, err := Expand(c.template)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, %v, want %q", c.template, got, err, c.want)
		}
	}
	for _, template := range []string{
		"{", "}", "a}b", "{}", "{1}", "{1..}", "{..2}", "{2..1}", "{1..2..0}", "{-1..2}", "{a..b}", "{1..2..3..4}", "{1..2",
		"{0..1000000}", "{0..99999}{0..99}", "{1..99999999999999999999}",
	} {
		if got, err := Expand(template); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%q: got %d names, %v, want %v", template, len(got), err, core.ErrInvalid)
		}
	}
}

// FuzzExpand holds Expand to its bound and to names that keep the fixed text.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "shard-{001..003}.tar", "{1..9..4}{2..3}", "{{1..2}}", "{0..999}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, template string) {
		names, err := Expand(template)
		if err != nil {
			return
		}
		if len(names) == 0 || len(names) > maxExpanded {
			t.Fatalf("%q: got %d names", template, len(names))
		}
		prefix, _, _ := strings.Cut(template, "{")
		for _, n := range []string{names[0], names[len(names)-1]} {
			if !strings.HasPrefix(n, prefix) {
				t.Fatalf("%q: got %q", template, n)
			}
		}
	})
}

func TestSelector(t *testing.T) {
	keys := []string{"a/1", "a/2", "a/10", "b/1", "shard-01.tar", "shard-03.tar"}
	for _, c := range []struct {
		name string
		spec Spec
		want []string
	}{
		{"all", Spec{}, keys},
		{"prefix", Spec{Prefix: "a/"}, []string{"a/1", "a/2", "a/10"}},
		{"list", Spec{List: []string{"b/1", "a/1", "none", "a/1"}}, []string{"a/1", "b/1"}},
		{"an empty list is none", Spec{List: []string{}}, nil},
		{"template", Spec{Template: "shard-{01..03}.tar"}, []string{"shard-01.tar", "shard-03.tar"}},
		{"list and template", Spec{List: []string{"b/1"}, Template: "a/{1..2}"}, []string{"a/1", "a/2", "b/1"}},
		{"regex", Spec{Regex: `/1$`}, []string{"a/1", "b/1"}},
		{"prefix and regex", Spec{Prefix: "a/", Regex: `1`}, []string{"a/1", "a/10"}},
	} {
		sel, err := newSelector(&c.spec)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range keys {
			if sel.takes(k) {
				got = append(got, k)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	for _, s := range []Spec{{Regex: "("}, {Template: "{"}} {
		if _, err := newSelector(&s); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%+v: got %v, want %v", s, err, core.ErrInvalid)
		}
	}
}

func TestDestKey(t *testing.T) {
	s := Spec{Prepend: "out/", Ext: map[string]string{"gz": "zst", "tar.gz": "tar", "jpg": "png"}}
	for key, want := range map[string]string{
		"a.jpg": "out/a.png", "a.tar.gz": "out/a.tar", "a.gz": "out/a.zst", "a.jpg.txt": "out/a.jpg.txt", "jpg": "out/jpg", ".jpg": "out/.png",
	} {
		for range 20 { // maps are walked in any order
			if got := s.destKey(key); got != want {
				t.Fatalf("%s: got %s, want %s", key, got, want)
			}
		}
	}
}

// TestCursor walks rows in order with a cursor: each is passed once it was, and
// none before.
func TestCursor(t *testing.T) {
	type row struct {
		b        core.BucketID
		key, sub string
	}
	rows := []row{{1, "a", ""}, {1, "a", "x"}, {1, "b", ""}, {2, "", "y"}, {2, "a", ""}, {3, "a", ""}}
	var c cursor
	for i, r := range rows {
		for k, x := range rows {
			if got, want := c.passed(x.b, x.key, x.sub), k < i; got != want {
				t.Errorf("at %d: passed %v is %v, want %v", i, x, got, want)
			}
		}
		c.Bucket, c.Key, c.Sub = r.b, r.key, r.sub
	}
	c.Finished = true
	if !c.passed(9, "z", "z") {
		t.Error("a finished cursor has not passed everything")
	}
}

// TestBooks counts every kind of end once: what passed is what was counted.
func TestBooks(t *testing.T) {
	var c Books
	for i, e := range []end{endDone, endSkipped, endFailed, endDropped} {
		result{end: e, out: Amount{1, 5}}.count(&c, int64(10+i))
	}
	want := Books{
		Done: Amount{1, 10}, Skipped: Amount{1, 11}, Failed: Amount{1, 12}, Dropped: Amount{1, 13}, Outputs: Amount{4, 20},
	}
	if c != want {
		t.Errorf("got %+v, want %+v", c, want)
	}
	if got := c.passed(); got != (Amount{4, 46}) {
		t.Errorf("passed: got %+v", got)
	}
	if sum := c.Add(c); sum.Outputs != (Amount{8, 40}) || sum.passed() != (Amount{8, 92}) {
		t.Errorf("twice: got %+v", sum)
	}
}

// TestNoted: every failure is noted, and of what is present already some are.
func TestNoted(t *testing.T) {
	var list []Error
	for i := range 3 * errorsKept {
		for _, r := range []result{
			{end: endFailed, why: Error{Code: "internal", Message: strings.Repeat("ä", longestNote)}},
			{end: endSkipped, why: Error{Code: codePresent, Message: "it is present"}},
			{end: endDone},
		} {
			if e, ok := r.note(fmt.Sprint(r.end, "-", i)); ok {
				list = noted(list, e)
			}
		}
	}
	count := map[bool]int{}
	for _, e := range list {
		count[e.failed()]++
		if len(e.Message) > longestNote+4 || !utf8.ValidString(e.Message) {
			t.Fatalf("message of %d bytes", len(e.Message))
		}
	}
	if count[true] != 3*errorsKept || count[false] == 0 || count[false] > errorsKept {
		t.Errorf("got %v", count)
	}
	if got := someErrors(list[:3], 5, list[3:]...); len(got) != 5 || got[4].Key != list[4].Key {
		t.Errorf("got %d errors", len(got))
	}
}

func TestCodes(t *testing.T) {
	for err, want := range map[error]string{
		fmt.Errorf("x: %w", core.ErrNotFound): "not_found", core.ErrCorrupt: "corrupt", core.ErrNoSpace: "no_space",
		core.ErrUnavailable: "unavailable", core.ErrInvalid: "invalid", errors.New("odd"): "internal",
	} {
		if got := codeOf(err); got != want {
			t.Errorf("%v: got %s, want %s", err, got, want)
		}
	}
}

// TestShown: figures do not step back while slots change hands, and are exact
// where all owners spoke, but for what is done, which stays done.
func TestShown(t *testing.T) {
	books := func(done, failed int64) Books {
		return Books{Done: Amount{done, 10 * done}, Failed: Amount{failed, failed}}
	}
	m := &Manager{jobs: map[string]*entry{"j": {}}}
	m.know("j", Planning, Books{Planned: Amount{50, 500}})
	for _, c := range []struct {
		name  string
		now   Books
		whole bool
		want  Books
	}{
		{"first", books(10, 0), true, books(10, 0)},
		{"further", books(20, 2), true, books(20, 2)},
		{"an owner is gone", books(12, 1), false, books(20, 2)},
		{"its slots are read from where its cursors were", books(18, 1), true, books(20, 1)},
		{"it goes on", books(30, 1), true, books(30, 1)},
	} {
		known := m.know("j", Running, c.now)
		if got := c.now.shown(known, c.whole); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}
