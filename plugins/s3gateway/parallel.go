package s3gateway

import (
	"sync"
	"sync/atomic"
)

// each calls f for 0 to n-1 from up to width goroutines and waits for all.
func each(n, width int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, width) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}
