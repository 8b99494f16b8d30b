//go:build wasip1

// Upperwasi is a plain command that puts its standard input into upper case: it
// knows nothing of Shoal but the names of its environment. Build it with
//
//	GOOS=wasip1 GOARCH=wasm go build -o upper.wasm .
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

func main() {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "read:", err)
		os.Exit(1)
	}
	if len(in) == 0 {
		fmt.Fprintln(os.Stderr, "nothing in", os.Getenv("SHOAL_OBJECT"))
		os.Exit(77) // drop it
	}
	for _, arg := range os.Args[1:] {
		in = append(in, " "+arg...)
	}
	if _, err := os.Stdout.Write(bytes.ToUpper(in)); err != nil {
		os.Exit(1)
	}
}
