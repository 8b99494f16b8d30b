//go:build wasip1

package transform

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
)

// MaxLine is the longest line, in bytes, that fits well with what a handler makes
// of it into the 64 MiB that a transform has unless it is given more.
const MaxLine = 8 << 20

// Lines gives the lines of r, each with its end as it is there; only the last one
// may have none. A line is valid until the next one is asked for. An error is the
// last thing given: that of r, or that a line is longer than longest bytes.
func Lines(r io.Reader, longest int) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		in := bufio.NewScanner(r)
		in.Buffer(make([]byte, min(64<<10, longest)), longest)
		in.Split(func(data []byte, atEOF bool) (int, []byte, error) {
			if i := bytes.IndexByte(data, '\n'); i >= 0 {
				return i + 1, data[:i+1], nil
			}
			if atEOF && len(data) > 0 {
				return len(data), data, nil
			}
			return 0, nil, nil
		})
		n := 1
		for ; in.Scan(); n++ {
			if !yield(in.Bytes(), nil) {
				return
			}
		}
		err := in.Err()
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("line %d is longer than %d bytes", n, longest)
		}
		if err != nil {
			yield(nil, err)
		}
	}
}
