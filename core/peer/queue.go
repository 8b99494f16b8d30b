package peer

import (
	"bufio"
	"sync"
)

// packSize is the size in bytes of the buffers in which small frames are
// gathered before they are written. A small shard fits, with all that belongs
// to it.
const packSize = smallShard + 2<<10

// item is a frame that waits to be written: a head with a fixed prefix, and a
// body, which nobody changes any more.
type item struct {
	head [frameHead + requestPrefix]byte
	n    int // bytes of head in use
	body []byte
	call *pending // if set, asked before the frame is written
}

func newItem(t frameType, prefix, body []byte) (it item) {
	putHead(it.head[:], t, len(prefix)+len(body))
	it.n = frameHead + copy(it.head[frameHead:], prefix)
	it.body = body
	return it
}

func (it *item) size() int64 { return int64(it.n + len(it.body)) }

// queue holds frames for a connection's writer.
type queue struct {
	wake chan struct{} // holds a token once there is something to take

	mu     sync.Mutex
	items  []item
	bytes  int64         // of the items, and of those taken but not written
	room   chan struct{} // if not nil, closed when bytes shrinks
	closed bool
}

// push adds an item unless that makes the queue longer than limit bytes. One
// item always has room in an empty queue.
func (q *queue) push(it item, limit int64) bool {
	q.mu.Lock()
	if q.closed || q.bytes > 0 && q.bytes+it.size() > limit {
		q.mu.Unlock()
		return false
	}
	q.items = append(q.items, it)
	q.bytes += it.size()
	first := len(q.items) == 1
	q.mu.Unlock()
	if first {
		token(q.wake)
	}
	return true
}

// pushWait waits until there is room. It returns false once done is closed.
func (q *queue) pushWait(it item, limit int64, done <-chan struct{}) bool {
	for !q.push(it, limit) {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return false
		}
		if q.bytes == 0 {
			q.mu.Unlock()
			continue
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-done:
			return false
		}
	}
	return true
}

// take returns all items in exchange for an empty slice.
func (q *queue) take(empty []item) []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.items
	q.items = empty
	return taken
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) == 0
}

// written makes room for n bytes.
func (q *queue) written(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= n
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// drop empties the queue and returns the number of items.
func (q *queue) drop() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.items)
	for i := range q.items {
		q.bytes -= q.items[i].size()
	}
	q.items = nil
	return n
}

// close drops what is there and refuses the rest.
func (q *queue) close() {
	q.drop()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}

func (q *queue) size() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// token puts one into a channel that holds one.
func token(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// transmit writes what the queue holds to c until the connection ends. It
// flushes when the queue is empty. wrote is told how many items were written,
// and lost how many were taken but not written when the connection ended.
func (c *conn) transmit(q *queue, wrote, lost func(int)) {
	w := bufio.NewWriterSize(c, packSize)
	var batch, spare []item
	for {
		batch, spare = q.take(spare[:0]), batch
		if len(batch) == 0 {
			select {
			case <-c.done:
				return
			case <-q.wake:
				continue
			}
		}
		n, err := c.writeBatch(w, q, batch)
		wrote(n)
		if err != nil {
			lost(len(batch) - n)
			return
		}
	}
}

// writeBatch writes items, and empties the slice. It returns the number of
// those written; after an error the connection has ended.
func (c *conn) writeBatch(w *bufio.Writer, q *queue, batch []item) (n int, err error) {
	const release = 256 << 10 // how often, in bytes, room is made in the queue
	c.wmu.Lock()
	defer c.wmu.Unlock()
	var size int64
	for i := range batch {
		it := &batch[i]
		if err == nil && (it.call == nil || it.call.send()) {
			if err = it.writeTo(w); err == nil {
				n++
			}
		}
		size += it.size()
		*it = item{}
		if size >= release || i == len(batch)-1 {
			q.written(size)
			size = 0
		}
	}
	if err == nil && c.pingDue.Swap(false) {
		f := pingFrame(framePing, uint64(c.t.o.Clock.Boot()))
		_, err = w.Write(f[:])
	}
	if err == nil && q.empty() {
		err = w.Flush()
	}
	return n, c.check(err)
}

func (it *item) writeTo(w *bufio.Writer) error {
	if _, err := w.Write(it.head[:it.n]); err != nil {
		return err
	}
	_, err := w.Write(it.body)
	return err
}
