//go:build wasip1

// Normalize gives a text in one of the many forms in which it may be written.
//
//	--arg form=nfc        Unicode: nfc (unless said), nfkc, or none
//	--arg case=lower      lower or upper; as it is unless said
//	--arg space=collapse  each run of blanks in a line is one space, and lines have none
//	                      at either end and end in \n; as it is unless said
//	--arg invalid=error   fail on what is not UTF-8; U+FFFD takes its place unless said
//
// A byte order mark at the beginning goes.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	transform "github.com/shoalstore/shoal/wasmetl/guest/go"
)

func init() { transform.Handle(normalize) }

func main() {}

func normalize(r io.Reader, w io.Writer) error {
	form, err := choice("form", "nfc", "nfkc", "none")
	if err != nil {
		return err
	}
	letters, err := choice("case", "keep", "lower", "upper")
	if err != nil {
		return err
	}
	space, err := choice("space", "keep", "collapse")
	if err != nil {
		return err
	}
	invalid, err := choice("invalid", "replace", "error")
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 32<<10)
	blanks := &collapser{out: out}
	to := io.Writer(out)
	if space == "collapse" {
		to = blanks
	}
	// Case comes before the form: a letter in another case may be one that the form
	// would write differently.
	end := func() error { return nil }
	if form != "none" {
		f := norm.NFC
		if form == "nfkc" {
			f = norm.NFKC
		}
		n := f.Writer(to)
		to, end = n, n.Close
	}
	if err := copyRunes(to, r, letters, invalid == "error"); err != nil {
		return err
	}
	if err := end(); err != nil {
		return err
	}
	return out.Flush()
}

// choice is an argument that is one of some words, the first unless it is given.
func choice(name string, words ...string) (string, error) {
	text, ok := transform.Arg(name)
	if !ok {
		return words[0], nil
	}
	for _, w := range words {
		if w == text {
			return text, nil
		}
	}
	return "", fmt.Errorf("%s=%s: say one of %q", name, text, words)
}

func copyRunes(w io.Writer, r io.Reader, letters string, strict bool) error {
	in := bufio.NewReaderSize(r, 32<<10)
	text := make([]byte, 0, 32<<10)
	for at := int64(0); ; {
		c, n, err := in.ReadRune()
		if errors.Is(err, io.EOF) {
			_, err := w.Write(text)
			return err
		}
		if err != nil {
			return err
		}
		if c == utf8.RuneError && n == 1 && strict {
			return fmt.Errorf("byte %d is not UTF-8", at)
		}
		first := at == 0
		at += int64(n)
		switch {
		case first && c == '\uFEFF':
			continue
		case letters == "lower":
			c = unicode.ToLower(c)
		case letters == "upper":
			c = unicode.ToUpper(c)
		}
		if text = utf8.AppendRune(text, c); len(text) > cap(text)-utf8.UTFMax {
			if _, err := w.Write(text); err != nil {
				return err
			}
			text = text[:0]
		}
	}
}

// collapser makes runs of blanks into one space, and leaves out those at either end
// of a line. It is given UTF-8, of which a character may be cut in two.
type collapser struct {
	out     *bufio.Writer
	cut     []byte
	blank   bool // one is due before the next character
	started bool // the line has one
}

func (c *collapser) Write(p []byte) (int, error) {
	size := len(p)
	if len(c.cut) > 0 {
		p = append(c.cut, p...)
	}
	for len(p) > 0 && utf8.FullRune(p) {
		r, n := utf8.DecodeRune(p)
		p = p[n:]
		if err := c.add(r); err != nil {
			return 0, err
		}
	}
	c.cut = append([]byte(nil), p...)
	return size, nil
}

func (c *collapser) add(r rune) error {
	switch {
	case r == '\n':
		c.blank, c.started = false, false
		return c.out.WriteByte('\n')
	case unicode.IsSpace(r):
		c.blank = c.started
		return nil
	case c.blank:
		c.blank = false
		if err := c.out.WriteByte(' '); err != nil {
			return err
		}
	}
	c.started = true
	_, err := c.out.WriteRune(r)
	return err
}
