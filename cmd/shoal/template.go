package main

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// template is a pattern of names: literal text and ranges in braces, as in
// shard-{001..999}.tar or {a..} which is literal.
type template struct{ parts []templatePart }

// templatePart is literal text, or, if step is not 0, the numbers from first to
// last, padded with zeros to width.
type templatePart struct {
	text              string
	first, last, step int64
	width             int
}

// maxNames bounds the names of a template.
const maxNames = 1 << 31

// parseTemplate reads {A..B} and {A..B..STEP}; what is not of that form is
// literal. Numbers are padded to the width of A where that begins with a zero.
func parseTemplate(s string) (template, error) {
	var t template
	total := int64(1)
	literal := ""
	for s != "" {
		open := strings.IndexByte(s, '{')
		end := strings.IndexByte(s[max(open, 0):], '}')
		if open < 0 || end < 0 {
			break
		}
		end += open
		part, ok, err := parseRange(s[open+1 : end])
		if err != nil {
			return t, err
		}
		literal += s[:open]
		if ok {
			t.parts = append(t.parts, templatePart{text: literal}, part)
			literal = ""
			if total *= part.count(); total > maxNames {
				return t, usagef("template: more than %d names", maxNames)
			}
		} else {
			literal += s[open : end+1]
		}
		s = s[end+1:]
	}
	t.parts = append(t.parts, templatePart{text: literal + s})
	return t, nil
}

func parseRange(s string) (part templatePart, ok bool, err error) {
	bounds := strings.Split(s, "..")
	if len(bounds) < 2 || len(bounds) > 3 {
		return part, false, nil
	}
	numbers := make([]int64, 3)
	numbers[2] = 1
	for i, b := range bounds {
		n, err := strconv.ParseUint(b, 10, 40)
		if err != nil {
			return part, false, nil //nolint:nilerr // not a range, so literal
		}
		numbers[i] = int64(n)
	}
	part = templatePart{first: numbers[0], last: numbers[1], step: numbers[2]}
	if part.first > part.last || part.step == 0 {
		return part, false, usagef("template: {%s} is empty: want {FIRST..LAST} or {FIRST..LAST..STEP}", s)
	}
	if strings.HasPrefix(bounds[0], "0") {
		part.width = len(bounds[0])
	}
	return part, true, nil
}

func (p templatePart) count() int64 { return (p.last-p.first)/p.step + 1 }

// count is the number of names.
func (t template) count() int64 {
	n := int64(1)
	for _, p := range t.parts {
		if p.step > 0 {
			n *= p.count()
		}
	}
	return n
}

// names yields the names in order, the last range fastest.
func (t template) names() iter.Seq[string] {
	return func(yield func(string) bool) { t.from(0, "", yield) }
}

func (t template) from(i int, prefix string, yield func(string) bool) bool {
	if i == len(t.parts) {
		return yield(prefix)
	}
	p := t.parts[i]
	if p.step == 0 {
		return t.from(i+1, prefix+p.text, yield)
	}
	for n := p.first; n <= p.last; n += p.step {
		if !t.from(i+1, prefix+fmt.Sprintf("%0*d", p.width, n), yield) {
			return false
		}
	}
	return true
}
