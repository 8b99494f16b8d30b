//go:build wasip1

// Jsonlines filters and projects a file of JSON objects, one a line.
//
//	--arg where=lang=en           keep objects whose field lang is "en"
//	--arg where=meta.score>=0.5   a field of an object in a field; also != < <= >
//	--arg where=lang=en,score>0   both
//	--arg keep=id,text            keep these fields only, in this order
//
// A file of which no line is left is dropped. A line that is not a JSON object
// fails the file.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	transform "github.com/shoalstore/shoal/wasmetl/guest/go"
)

func init() { transform.Handle(filter) }

func main() {}

func filter(r io.Reader, w io.Writer) error {
	var conditions []condition
	if where, ok := transform.Arg("where"); ok {
		for part := range strings.SplitSeq(where, ",") {
			c, err := parseCondition(part)
			if err != nil {
				return err
			}
			conditions = append(conditions, c)
		}
	}
	keep, projecting := transform.Arg("keep")
	fields := strings.Split(keep, ",")

	out := bufio.NewWriterSize(w, 32<<10)
	kept, line := 0, 0
	for text, err := range transform.Lines(r, transform.MaxLine) {
		if err != nil {
			return err
		}
		line++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(text, &object); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if !all(conditions, object) {
			continue
		}
		if projecting {
			text = project(object, fields)
		}
		if kept++; kept == 1 {
			if err := transform.SetContentType("application/x-ndjson"); err != nil {
				return err
			}
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
		if err := out.WriteByte('\n'); err != nil {
			return err
		}
	}
	if kept == 0 {
		return transform.ErrDrop
	}
	return out.Flush()
}

// condition compares a field with a word.
type condition struct {
	path     []string
	operator string
	want     string
	number   float64 // want as one, for operators of order
}

func parseCondition(text string) (condition, error) {
	// The longer ones come first, where they begin alike.
	for i := range text {
		for _, operator := range []string{"!=", "<=", ">=", "=", "<", ">"} {
			want, ok := strings.CutPrefix(text[i:], operator)
			if !ok {
				continue
			}
			c := condition{path: strings.Split(text[:i], "."), operator: operator, want: want}
			if operator != "=" && operator != "!=" {
				var err error
				if c.number, err = strconv.ParseFloat(want, 64); err != nil {
					return c, fmt.Errorf("where=%s: %q is no number", text, want)
				}
			}
			return c, nil
		}
	}
	return condition{}, fmt.Errorf("where=%s: say FIELD=VALUE, or != < <= > >=", text)
}

func all(conditions []condition, object map[string]json.RawMessage) bool {
	for _, c := range conditions {
		if !c.holds(object) {
			return false
		}
	}
	return true
}

func (c condition) holds(object map[string]json.RawMessage) bool {
	value := object[c.path[0]]
	for _, name := range c.path[1:] {
		var inner map[string]json.RawMessage
		if json.Unmarshal(value, &inner) != nil {
			value = nil
			break
		}
		value = inner[name]
	}
	switch c.operator {
	case "=":
		return equal(value, c.want)
	case "!=":
		return !equal(value, c.want)
	}
	var number float64
	if value == nil || json.Unmarshal(value, &number) != nil {
		return false
	}
	switch c.operator {
	case "<":
		return number < c.number
	case "<=":
		return number <= c.number
	case ">":
		return number > c.number
	}
	return number >= c.number
}

// equal compares a value with a word: a string by its content, others as written.
func equal(value json.RawMessage, want string) bool {
	var s string
	if json.Unmarshal(value, &s) == nil && len(value) > 0 && value[0] == '"' {
		return s == want
	}
	return string(value) == want
}

// project keeps fields, in the order in which they are asked for.
func project(object map[string]json.RawMessage, fields []string) []byte {
	out := []byte{'{'}
	for _, f := range fields {
		value, ok := object[f]
		if !ok {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		name, _ := json.Marshal(f) // a string always has a form
		out = append(append(append(out, name...), ':'), value...)
	}
	return append(out, '}')
}
