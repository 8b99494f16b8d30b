package main

import (
	"fmt"
	"regexp"
	"strings"
)

// allowedSkips are the reasons for which a test may be skipped where skips are enforced.
type allowedSkips []*regexp.Regexp

// readAllowedSkips reads a list of regular expressions, one a line, each of which must
// match a whole reason. An empty path is an empty list.
func readAllowedSkips(path string) (allowedSkips, error) {
	if path == "" {
		return nil, nil
	}
	lines, err := readList(path)
	if err != nil {
		return nil, err
	}
	var skips allowedSkips
	for _, line := range lines {
		re, err := regexp.Compile(`^(?:` + line + `)$`)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not a regular expression: %w", path, line, err)
		}
		skips = append(skips, re)
	}
	return skips, nil
}

func (a allowedSkips) allow(reason string) bool {
	for _, re := range a {
		if re.MatchString(reason) {
			return true
		}
	}
	return false
}

// skipReason returns what a skipped test gave as its reason, on one line: the last thing
// that it logged, without the file and line that the testing package puts before it.
func skipReason(output []string) string {
	// What the testing package writes before an entry of a test's log.
	prefix := regexp.MustCompile(`^\s*[^\s:]+\.go:\d+: `)
	var reason []string
	for _, line := range output {
		line = strings.TrimRight(line, "\n")
		text := strings.TrimSpace(line)
		if text == "" || strings.HasPrefix(text, "=== ") || strings.HasPrefix(text, "--- ") {
			continue
		}
		if m := prefix.FindString(line); m != "" {
			reason = reason[:0] // a new entry of the log
			text = strings.TrimSpace(line[len(m):])
		}
		reason = append(reason, text)
	}
	if len(reason) == 0 {
		return "no reason given"
	}
	return strings.Join(reason, " ")
}
