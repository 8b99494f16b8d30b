package s3gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"

	"github.com/shoalstore/shoal/core"
)

// copyBuffer is the memory through which a download passes, in bytes.
const copyBuffer = 128 << 10

// getOptions reads what GET and HEAD ask for.
func (q *request) getOptions() (core.GetOptions, error) {
	o := core.GetOptions{Conditions: readConditions(q.r.Header, ""), SendFile: q.r.TLS == nil}
	var err error
	if o.Latest, o.Sync, err = q.latest(); err != nil {
		return o, err
	}
	header := first(q.r.Header, "Range")
	if v, ok := q.query.Lookup("partNumber"); ok {
		if header != "" {
			return o, errInvalidRequest("Cannot specify both Range header and partNumber query parameter")
		}
		n, err := parsePartNumber(v)
		o.Part = n
		return o, err
	}
	// With If-Range a server may always answer with the whole object.
	if header != "" && first(q.r.Header, "If-Range") == "" {
		o.Range = parseRange(header)
	}
	return o, nil
}

// latest reads whether a read asks the remote first: the header X-Shoal-Latest,
// or for who cannot send one the parameter x-shoal-latest.
func (q *request) latest() (latest, sync bool, err error) {
	value := first(q.r.Header, "X-Shoal-Latest")
	if value == "" {
		value = q.query.Get("x-shoal-latest")
	}
	switch value {
	case "", "false":
		return false, false, nil
	case "true":
		return true, false, nil
	case "sync":
		return true, true, nil
	}
	return false, false, errInvalidArgument("x-shoal-latest", value, "x-shoal-latest must be true, sync or false")
}

func parsePartNumber(v string) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > core.MaxParts {
		return 0, errInvalidArgument("partNumber", v, "Part number must be an integer between 1 and 10000, inclusive")
	}
	return n, nil
}

// describeRead sets the headers of an answer to GET or HEAD that delivers
// length bytes from start, and returns its status.
func (q *request) describeRead(info *core.ObjectInfo, o core.GetOptions, start, length int64) int {
	q.describeObject(info, length)
	if o.Part != 0 && len(info.Parts) > 0 {
		q.set("x-amz-mp-parts-count", strconv.Itoa(len(info.Parts)))
	}
	if o.Range == nil && (o.Part == 0 || length == 0) {
		if first(q.r.Header, "X-Amz-Checksum-Mode") == "ENABLED" {
			q.setChecksumHeaders(info.Checksum)
		}
		return http.StatusOK
	}
	q.set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, start+length-1, info.Size))
	return http.StatusPartialContent
}

// getObject serves GetObject.
func (q *request) getObject(ctx context.Context) error {
	o, err := q.getOptions()
	if err != nil {
		return err
	}
	obj, err := q.objects.Get(ctx, q.bucket, q.key, o)
	if err != nil {
		return err
	}
	defer func() { _ = obj.Body.Close() }() // it was read; nothing depends on it
	d := download{q: q, obj: obj, o: o, conn: connOf(ctx)}
	n, err := d.run()
	if err == nil && n != obj.Length {
		err = fmt.Errorf("get %s/%s: the body has %d bytes, want %d: %w", q.alias, q.key, n, obj.Length, io.ErrUnexpectedEOF)
	}
	if err == nil {
		d.begin()
		return nil
	}
	if !d.begun {
		return err
	}
	// The status is out. Only a broken connection says that this is not all.
	if d.werr == nil && ctx.Err() == nil {
		q.log.Warn("s3 download broken off", "bucket", q.alias, "key", q.key,
			"request_id", string(q.idHex[:]), "sent", n, "length", obj.Length, "err", err)
	}
	panic(http.ErrAbortHandler)
}

// download writes a body to the client. The status goes out with the first
// byte, so that what fails before is an error that clients understand.
type download struct {
	q     *request
	obj   *core.Object
	o     core.GetOptions
	conn  *conn // nil if it cannot hold anything back
	begun bool
	werr  error // of the connection
}

func (d *download) begin() {
	if d.begun {
		return
	}
	d.begun = true
	d.q.w.WriteHeader(d.q.describeRead(&d.obj.ObjectInfo, d.o, d.obj.Start, d.obj.Length))
}

// Write implements io.Writer.
func (d *download) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	first := !d.begun
	d.begin()
	n, err := d.write(p, first)
	if err != nil {
		d.werr = err
	}
	return n, err
}

// write writes bytes of the body; the first ones together with the head.
func (d *download) write(p []byte, first bool) (n int, err error) {
	if first && d.conn != nil && len(p) >= worthHolding {
		d.conn.hold()
		defer func() {
			if rerr := d.conn.release(); err == nil {
				err = rerr
			}
		}()
	}
	return d.q.w.Write(p)
}

// ReadFrom lets a body that writes itself hand its file to the connection,
// which then sends it without copying.
func (d *download) ReadFrom(r io.Reader) (int64, error) {
	rf, ok := d.q.w.(io.ReaderFrom)
	if !ok || !isFile(r) {
		return d.pump(r)
	}
	d.begin()
	// With the header out net/http has no use for the file's first bytes.
	if err := http.NewResponseController(d.q.w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		d.werr = err
		return 0, err
	}
	return rf.ReadFrom(r)
}

// isFile says whether r is a file or the next bytes of one.
func isFile(r io.Reader) bool {
	if l, ok := r.(*io.LimitedReader); ok {
		r = l.R
	}
	_, ok := r.(*os.File)
	return ok
}

func (d *download) run() (int64, error) {
	if w, ok := d.obj.Body.(io.WriterTo); ok {
		return w.WriteTo(d)
	}
	return d.pump(d.obj.Body)
}

// pump copies by the gateway's own buffers. It holds the last bytes back until
// the body has ended well: once they are out a client takes the object for
// whole.
func (d *download) pump(r io.Reader) (n int64, err error) {
	buf, _ := d.q.buffers.Get().(*[copyBuffer]byte)
	if buf == nil {
		buf = new([copyBuffer]byte)
	}
	defer d.q.buffers.Put(buf)
	for {
		m, rerr := r.Read(buf[:])
		if rerr == nil && n+int64(m) == d.obj.Length {
			rerr = ends(r)
		}
		if rerr != nil && !errors.Is(rerr, io.EOF) {
			return n, rerr
		}
		w, werr := d.Write(buf[:m])
		n += int64(w)
		if werr != nil {
			return n, werr
		}
		if rerr != nil {
			return n, nil
		}
	}
}

// ends returns io.EOF if the body ends here.
func ends(r io.Reader) error {
	var more [1]byte
	for {
		n, err := r.Read(more[:])
		switch {
		case n > 0:
			return errors.New("the body is longer than announced")
		case err != nil:
			return err
		}
	}
}

// headObject serves HeadObject.
func (q *request) headObject(ctx context.Context) error {
	o, err := q.getOptions()
	if err != nil {
		return err
	}
	info, err := q.objects.Head(ctx, q.bucket, q.key, o)
	if err != nil {
		return err
	}
	start, length := int64(0), info.Size
	switch {
	case o.Range != nil:
		start, length, err = o.Range.Resolve(info.Size)
	case o.Part != 0:
		start, length, err = partOf(&info, o.Part)
	}
	if err != nil {
		return err
	}
	q.w.WriteHeader(q.describeRead(&info, o, start, length))
	return nil
}

// partOf finds a part's bytes. An object that was not uploaded in parts has one.
func partOf(info *core.ObjectInfo, part int) (start, length int64, err error) {
	if len(info.Parts) == 0 && part == 1 {
		return 0, info.Size, nil
	}
	if part > len(info.Parts) {
		return 0, 0, fmt.Errorf("part %d of %d: %w", part, len(info.Parts), core.ErrRange)
	}
	for _, n := range info.Parts[:part-1] {
		start += n
	}
	return start, info.Parts[part-1], nil
}

// openBody opens the request's body for an object or part.
func (q *request) openBody(o *core.PutOptions) error {
	q.raw.ReadCloser = q.r.Body
	q.r.Body = &q.raw
	body, size, err := q.auth.Body(q.r)
	q.r.Body = q.raw.ReadCloser // net/http looks at its type once all is done
	if err != nil {
		return err
	}
	q.body = body
	if size > maxPut {
		return bad("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size; upload it in parts.",
			detail("ProposedSize", size), detail("MaxSizeAllowed", maxPut))
	}
	o.Size = size
	o.Request, o.Fresh = q.writeID()
	if o.MD5, err = contentMD5(q.r.Header); err != nil {
		return err
	}
	return q.setChecksum(o, body)
}

// putObject serves PutObject.
func (q *request) putObject(ctx context.Context) error {
	var o core.PutOptions
	var err error
	if err = q.describeUpload(&o); err != nil {
		return err
	}
	if o.Conditions, err = q.writeConditions(); err != nil {
		return err
	}
	if err = q.openBody(&o); err != nil {
		return err
	}
	info, err := q.objects.Put(ctx, q.bucket, q.key, q.body, o)
	if err != nil {
		return err
	}
	q.set("ETag", `"`+info.ETag+`"`)
	q.setChecksumHeaders(info.Checksum)
	return q.status(http.StatusOK)
}

// remove removes the object; an attempt that is not the first gets the answer of
// one before it.
func (q *request) remove(ctx context.Context, c core.Conditions) error {
	id, fresh := q.writeID()
	if !fresh {
		return q.objects.Delete(ctx, q.bucket, q.key, c, id)
	}
	if o, ok := q.objects.(core.FirstDeleter); ok {
		return o.DeleteFirst(ctx, q.bucket, q.key, c, id)
	}
	return q.objects.Delete(ctx, q.bucket, q.key, c, q.id)
}

// deleteObject serves DeleteObject.
func (q *request) deleteObject(ctx context.Context) error {
	c := readConditions(q.r.Header, "")
	if len(c.IfNoneMatch) > 0 || !c.IfModifiedSince.IsZero() || !c.IfUnmodifiedSince.IsZero() {
		return errNotImplemented("conditions other than If-Match for removals")
	}
	err := q.remove(ctx, c)
	if errors.Is(err, core.ErrNotFound) && len(c.IfMatch) == 1 && c.IfMatch[0] == "*" {
		// S3 answers 412 here, and 404 where an ETag was given.
		err = fmt.Errorf("%s: %w", err.Error(), core.ErrPrecondition)
	}
	if err != nil {
		return err
	}
	return q.status(http.StatusNoContent)
}
