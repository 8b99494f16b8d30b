//go:build wasip1

// Identity gives every object as it is.
package main

import (
	"io"

	transform "github.com/shoalstore/shoal/wasmetl/guest/go"
)

func init() {
	buffer := make([]byte, 64<<10)
	transform.Handle(func(r io.Reader, w io.Writer) error {
		_, err := io.CopyBuffer(w, r, buffer)
		return err
	})
}

func main() {}
