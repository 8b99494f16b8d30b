// Command compiler compiles one module, as a node's child does. The tests build it
// without the race detector, which makes compiling ten times slower and has nothing to
// find in a process of one goroutine.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/shoalstore/shoal/wasmetl"
)

func main() {
	if err := wasmetl.CompileChild(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
