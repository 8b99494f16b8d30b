// Package transform is for transforms written in Go: with it a module reads an
// object and writes its result through Shoal's interface shoal_v1.
//
//	package main
//
//	import (
//		"io"
//
//		transform "github.com/shoalstore/shoal/wasmetl/guest/go"
//	)
//
//	func init() {
//		transform.Handle(func(r io.Reader, w io.Writer) error {
//			_, err := io.Copy(w, r)
//			return err
//		})
//	}
//
//	func main() {}
//
// Build it as a reactor, whose main is not run:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o identity.wasm .
//
// An instance serves many objects, one after the other: what a handler leaves in
// variables is there for the next one. There are no files, sockets or sleep.
package transform
