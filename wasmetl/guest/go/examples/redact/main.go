//go:build wasip1

// Redact replaces what matches a pattern, in each line of a text.
//
//	--arg find=email,ipv4,card    known ones; a card's number has to have a right check digit
//	--arg pattern='id-([0-9]+)'   a regular expression (RE2), after those
//	--arg with='[gone]'           what comes in its place; [redacted] unless said.
//	                              ${1} is the pattern's first group
//
// The log says how many there were. No match spans two lines.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	transform "github.com/shoalstore/shoal/wasmetl/guest/go"
)

func init() { transform.Handle(redact) }

func main() {}

func redact(r io.Reader, w io.Writer) error {
	rules, err := readRules()
	if err != nil {
		return err
	}
	with := []byte("[redacted]")
	if text, ok := transform.Arg("with"); ok {
		with = []byte(text)
	}
	out := bufio.NewWriterSize(w, 32<<10)
	found := 0
	for line, err := range transform.Lines(r, transform.MaxLine) {
		if err != nil {
			return err
		}
		text := bytes.TrimRight(line, "\r\n")
		ending := line[len(text):]
		for _, rule := range rules {
			n := 0
			text, n = rule.apply(text, with)
			found += n
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
		if _, err := out.Write(ending); err != nil {
			return err
		}
	}
	transform.Log(transform.Info, "%d redacted", found)
	return out.Flush()
}

// rule is a pattern, with what else has to hold.
type rule struct {
	pattern *regexp.Regexp
	holds   func(match []byte) bool
}

func readRules() ([]rule, error) {
	var rules []rule
	if find, ok := transform.Arg("find"); ok {
		for name := range strings.SplitSeq(find, ",") {
			r := rule{}
			switch name {
			case "email":
				r.pattern = regexp.MustCompile(`[\w.%+-]+@[A-Za-z0-9][A-Za-z0-9.-]*\.[A-Za-z]{2,}`)
			case "ipv4":
				r.pattern = regexp.MustCompile(`\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b`)
			case "card":
				r.pattern, r.holds = regexp.MustCompile(`\b\d(?:[ -]?\d){12,18}\b`), luhn
			default:
				return nil, fmt.Errorf("find=%s: say email, ipv4 or card, or give a pattern", name)
			}
			rules = append(rules, r)
		}
	}
	if text, ok := transform.Arg("pattern"); ok {
		pattern, err := regexp.Compile(text)
		if err != nil {
			return nil, err
		}
		rules = append(rules, rule{pattern: pattern})
	}
	if len(rules) == 0 {
		return nil, errors.New("say --arg find=email,ipv4,card or pattern=EXPRESSION")
	}
	return rules, nil
}

// apply gives the text with what matches replaced, and how often that was.
func (r rule) apply(text, with []byte) ([]byte, int) {
	var out []byte
	found, copied := 0, 0
	for _, at := range r.pattern.FindAllSubmatchIndex(text, -1) {
		if at[0] == at[1] || r.holds != nil && !r.holds(text[at[0]:at[1]]) {
			continue
		}
		out = r.pattern.Expand(append(out, text[copied:at[0]]...), with, text, at)
		copied = at[1]
		found++
	}
	if found == 0 {
		return text, 0
	}
	return append(out, text[copied:]...), found
}

// luhn says whether the check digit of a number is right.
func luhn(number []byte) bool {
	sum, double := 0, false
	for i := len(number) - 1; i >= 0; i-- {
		if number[i] < '0' || number[i] > '9' {
			continue
		}
		digit := int(number[i] - '0')
		if double {
			if digit *= 2; digit > 9 {
				digit -= 9
			}
		}
		sum, double = sum+digit, !double
	}
	return sum%10 == 0
}
