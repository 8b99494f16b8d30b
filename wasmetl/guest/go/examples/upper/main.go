//go:build wasip1

// Upper puts a text into upper case. With the argument suffix it appends that.
package main

import (
	"bufio"
	"io"
	"unicode"

	transform "github.com/shoalstore/shoal/wasmetl/guest/go"
)

func init() { transform.Handle(upper) }

func main() {}

func upper(r io.Reader, w io.Writer) error {
	if err := transform.SetMeta("case", "upper"); err != nil {
		return err
	}
	in, out := bufio.NewReaderSize(r, 32<<10), bufio.NewWriterSize(w, 32<<10)
	for {
		c, _, err := in.ReadRune()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if _, err := out.WriteRune(unicode.ToUpper(c)); err != nil {
			return err
		}
	}
	if suffix, ok := transform.Arg("suffix"); ok {
		if _, err := out.WriteString(suffix); err != nil {
			return err
		}
	}
	return out.Flush()
}
