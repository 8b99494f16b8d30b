//go:build wasip1

// Jsonlines filters and projects a file of JSON objects, one a line.
//
//	--arg where=lang=en      keep objects whose field lang is "en"
//	--arg keep=id,text       keep these fields only
//
// A file of which no line is left is dropped.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	transform "github.com/shoalstore/shoal/wasmetl/guest/go"
)

func init() { transform.Handle(filter) }

func main() {}

func filter(r io.Reader, w io.Writer) error {
	where, filtering := transform.Arg("where")
	field, want, _ := strings.Cut(where, "=")
	keep, projecting := transform.Arg("keep")
	fields := strings.Split(keep, ",")

	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), 16<<20)
	out := bufio.NewWriterSize(w, 32<<10)
	kept := 0
	for line := 1; in.Scan(); line++ {
		if len(in.Bytes()) == 0 {
			continue
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(in.Bytes(), &object); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if filtering && !equal(object[field], want) {
			continue
		}
		text := in.Bytes()
		if projecting {
			text = project(object, fields)
		}
		kept++
		if _, err := out.Write(append(text, '\n')); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	if kept == 0 {
		return transform.ErrDrop
	}
	return out.Flush()
}

// equal compares a value with a word: a string by its content, others as written.
func equal(value json.RawMessage, want string) bool {
	var s string
	if json.Unmarshal(value, &s) == nil {
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
