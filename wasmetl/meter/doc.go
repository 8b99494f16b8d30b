// Package meter makes a WebAssembly module interruptible. It parses a core
// module, whoever made it, and writes it anew with a counter that calls an
// imported function, the poll, every so many steps:
//
//	m, err := meter.Parse(wasm, meter.Limits{})
//	metered := m.Rewrite(meter.Options{})
//
// The host gives the poll (shoal_meter.poll, of type () -> ()) and ends the
// guest from there. What the module computes stays the same.
//
// # Where the counter is
//
// A step is taken at every loop header and function entry. It weighs one, and
// one more for each 64 instructions that can follow before the next step, so
// that long straight code is not free; small functions that call nothing and
// do not loop are paid for by their caller. Operations on ranges of memory or
// of a table weigh by their length: 64 bytes or 8 elements a step. Growing a
// memory or a table calls the poll each time.
//
// A loop header that finds the counter spent goes back to an outer loop, put around
// each loop, which calls the poll: a call in the loop itself would make the
// compiler keep in memory what the loop has in registers. A loop in which nothing
// else counts (no call, no loop, no growth, no range) has the counter in a local,
// and puts it back wherever it may be left: at its end, at branches out of it, and
// at returns. So a guest goes on, once the counter is spent, for at most what
// follows before the next step.
//
// # What is added
//
// Outer loops, a type () -> (), an import at the end of the imported functions (indices of
// defined functions go up by one), a mutable i32 global, a local in each metered
// function, and a function that winds the counter up and calls the poll. A guest
// cannot reach them: indices are checked against the original module. Custom
// sections are dropped, except for the names of module and functions. Tables
// get a maximum.
//
// # What is checked
//
// Everything that has to be understood in order to rewrite: framing, counts,
// nesting, indices, instructions. Types are left to the compiler's validation,
// which has to follow. Features that Shoal has off (threads, tail calls,
// exceptions, several memories, 64-bit memories, relaxed SIMD) and components
// are refused by name. All work is linear in the module's size.
package meter
