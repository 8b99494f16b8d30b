//go:build wasip1

// Explode makes an object of each regular file of a tar archive. The argument
// prefix goes before their names.
package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	transform "github.com/shoalstore/shoal/wasmetl/guest/go"
)

func init() { transform.Handle(explode) }

func main() {}

func explode(r io.Reader, w io.Writer) error {
	prefix, _ := transform.Arg("prefix")
	buffer := make([]byte, 64<<10)
	archive := tar.NewReader(r)
	for files := 0; ; files++ {
		header, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF) && files == 0:
			return transform.ErrDrop
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case header.Typeflag != tar.TypeReg:
			files--
			continue
		}
		// Names in archives may lead anywhere; they become relative ones.
		name := strings.TrimPrefix(path.Clean("/"+header.Name), "/")
		if err := transform.Emit(prefix + name); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
		if _, err := io.CopyBuffer(w, archive, buffer); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}
