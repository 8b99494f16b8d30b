//go:build wasip1

// Csv makes JSON lines of comma-separated values (RFC 4180: quotes, commas and ends
// of lines in quotes).
//
//	--arg delimiter=tab     a character, or the word tab; a comma unless said
//	--arg header=id,text    names of the columns; the first line has them unless said
//	--arg types=guess       numbers, true and false are JSON ones; all is text unless said
//
// A line with another number of columns than the first fails the file.
package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	transform "github.com/shoalstore/shoal/wasmetl/guest/go"
)

func init() { transform.Handle(convert) }

func main() {}

func convert(r io.Reader, w io.Writer) error {
	comma, err := delimiter()
	if err != nil {
		return err
	}
	types, guess := transform.Arg("types")
	if guess && types != "guess" {
		return fmt.Errorf("types=%s: say guess, or nothing", types)
	}
	if err := describe(); err != nil {
		return err
	}
	bounded := &boundedRecords{r: bufio.NewReaderSize(r, 64<<10)}
	bounded.skipMark()
	in := csv.NewReader(bounded)
	in.Comma, in.ReuseRecord = comma, true
	out := bufio.NewWriterSize(w, 32<<10)
	var names [][]byte
	if header, ok := transform.Arg("header"); ok {
		if names, err = encode(strings.Split(header, ",")); err != nil {
			return err
		}
		in.FieldsPerRecord = len(names)
	}
	var text []byte
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil {
			return err
		}
		bounded.next()
		if names == nil {
			if names, err = encode(record); err != nil {
				return err
			}
			continue
		}
		text = append(text[:0], '{')
		for i, field := range record {
			if i > 0 {
				text = append(text, ',')
			}
			text = append(append(text, names[i]...), ':')
			if guess && isJSON(field) {
				text = append(text, field...)
			} else if text, err = appendString(text, field); err != nil {
				return err
			}
		}
		if _, err := out.Write(append(text, '}', '\n')); err != nil {
			return err
		}
	}
}

func describe() error {
	if err := transform.SetContentType("application/x-ndjson"); err != nil {
		return err
	}
	return transform.SetExt("jsonl")
}

func delimiter() (rune, error) {
	text, ok := transform.Arg("delimiter")
	switch {
	case !ok:
		return ',', nil
	case text == "tab":
		return '\t', nil
	}
	c, n := utf8.DecodeRuneInString(text)
	if n != len(text) || c == utf8.RuneError || strings.ContainsRune("\r\n\"", c) {
		return 0, fmt.Errorf("delimiter=%s: say one character, or tab", text)
	}
	return c, nil
}

// encode gives names as JSON has them.
func encode(names []string) ([][]byte, error) {
	encoded := make([][]byte, len(names))
	for i, name := range names {
		if slices.Index(names, name) < i {
			return nil, fmt.Errorf("two columns are named %q", name)
		}
		var err error
		if encoded[i], err = appendString(nil, name); err != nil {
			return nil, err
		}
	}
	return encoded, nil
}

func appendString(to []byte, s string) ([]byte, error) {
	plain := utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' })
	if plain {
		return append(append(append(to, '"'), s...), '"'), nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return nil, err
	}
	return append(to, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...), nil
}

// isJSON says that a field is a number, true or false as JSON writes them. So 007 and
// a telephone number with a + stay text.
func isJSON(field string) bool {
	if field == "true" || field == "false" {
		return true
	}
	return field != "" && strings.Trim(field, "-+.0123456789eE") == "" && json.Valid([]byte(field))
}

// boundedRecords gives an error where a record is longer than [transform.MaxLine]: one
// quote that is not closed makes one record of all that follows.
type boundedRecords struct {
	r    *bufio.Reader
	read int
}

func (b *boundedRecords) Read(p []byte) (int, error) {
	if b.read > transform.MaxLine {
		return 0, fmt.Errorf("a record is longer than %d bytes: is a quote not closed?", transform.MaxLine)
	}
	n, err := b.r.Read(p)
	b.read += n
	return n, err
}

func (b *boundedRecords) next() { b.read = 0 }

// skipMark leaves out a byte order mark, as spreadsheets write it.
func (b *boundedRecords) skipMark() {
	if mark, err := b.r.Peek(3); err == nil && string(mark) == "\uFEFF" {
		_, _ = b.r.Discard(len(mark))
	}
}
