package job

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// maxExpanded bounds what a template may stand for.
const maxExpanded = 1_000_000

// Expand returns the names that a template stands for. {a..b} is every number
// from a to b, {a..b..step} every step-th; a leading zero pads all to one
// width. A template may have several such ranges:
//
//	shard-{0001..0999..2}.tar
func Expand(template string) ([]string, error) {
	names := []string{""}
	rest := template
	for {
		text, tail, ok := strings.Cut(rest, "{")
		for i := range names {
			names[i] += text
		}
		if !ok {
			if strings.Contains(text, "}") {
				return nil, badTemplate(template, "a } without its {")
			}
			return names, nil
		}
		body, after, ok := strings.Cut(tail, "}")
		if !ok {
			return nil, badTemplate(template, "a { without its }")
		}
		values, err := expandRange(body)
		if err != nil {
			return nil, badTemplate(template, err.Error())
		}
		if len(values) > maxExpanded/len(names) {
			return nil, badTemplate(template, fmt.Sprintf("it stands for more than %d names", maxExpanded))
		}
		next := make([]string, 0, len(names)*len(values))
		for _, n := range names {
			for _, v := range values {
				next = append(next, n+v)
			}
		}
		names, rest = next, after
	}
}

func badTemplate(t, why string) error {
	return fmt.Errorf("template %q: %s; want e.g. shard-{001..999}.tar or {0..98..2}: %w", t, why, core.ErrInvalid)
}

// expandRange reads a..b or a..b..step.
func expandRange(body string) ([]string, error) {
	parts := strings.Split(body, "..")
	if len(parts) != 2 && len(parts) != 3 {
		return nil, fmt.Errorf("{%s} is no range", body)
	}
	var n [3]int
	n[2] = 1
	for i, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil || v < 0 {
			return nil, fmt.Errorf("{%s}: %q is no number", body, p)
		}
		n[i] = v
	}
	if n[1] < n[0] || n[2] < 1 {
		return nil, fmt.Errorf("{%s} is empty", body)
	}
	if (n[1]-n[0])/n[2] >= maxExpanded {
		return nil, fmt.Errorf("{%s} has more than %d numbers", body, maxExpanded)
	}
	width := 0
	if parts[0][0] == '0' && len(parts[0]) > 1 {
		width = len(parts[0])
	}
	var out []string
	for v := n[0]; v <= n[1]; v += n[2] {
		out = append(out, fmt.Sprintf("%0*d", width, v))
	}
	return out, nil
}
