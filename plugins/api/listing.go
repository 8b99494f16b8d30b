package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"
)

// ListType is the content type of a listing: a JSON object a line, each an
// [Object], then one [ListEnd]. A listing without its end was cut off.
const ListType = "application/x-ndjson"

// Object is a line of a listing.
type Object struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	ETag string `json:"etag"` // without quotes
	// Cached says whether the object is stored in the cluster, all of it.
	Cached   bool      `json:"cached"`
	Modified time.Time `json:"modified"`
	// Part says that some of it is.
	Part bool `json:"part,omitempty"`
}

// ListEnd is the last line of a listing.
type ListEnd struct {
	End bool `json:"end"`
	// More says that the listing stopped at the maximum asked for; it goes on
	// after the last name.
	More bool `json:"more,omitempty"`
	// Error says why the listing broke off; what came before is right.
	Error *Error `json:"error,omitempty"`
}

// AppendObject appends the object's line to b: what json.Marshal makes of it,
// without escaping HTML. Listings are long, so it does not reflect.
func AppendObject(b []byte, o *Object) []byte {
	b = append(b, `{"name":`...)
	b = appendString(b, o.Name)
	b = append(b, `,"size":`...)
	b = strconv.AppendInt(b, o.Size, 10)
	b = append(b, `,"etag":`...)
	b = appendString(b, o.ETag)
	b = append(b, `,"cached":`...)
	b = strconv.AppendBool(b, o.Cached)
	b = append(b, `,"modified":"`...)
	b = o.Modified.UTC().AppendFormat(b, time.RFC3339Nano)
	if o.Part {
		return append(b, "\",\"part\":true}\n"...)
	}
	return append(b, "\"}\n"...)
}

// AppendName is AppendObject for a listing of names only.
func AppendName(b []byte, name string) []byte {
	b = append(b, `{"name":`...)
	b = appendString(b, name)
	return append(b, "}\n"...)
}

func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), `\ufffd`...)
				start = i + n
			}
			i += n
			continue
		}
		if c < ' ' || c == '"' || c == '\\' || c == 0x7f {
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			start = i + 1
		}
		i++
	}
	return append(append(b, s[start:]...), '"')
}

// ListWriter writes a listing. It buffers; [ListWriter.End] flushes.
type ListWriter struct {
	w     *bufio.Writer
	names bool
	line  []byte
}

// NewListWriter returns a writer to w, of names only if names is set.
func NewListWriter(w io.Writer, names bool) *ListWriter {
	return &ListWriter{w: bufio.NewWriterSize(w, 64<<10), names: names}
}

// Object writes a line.
func (l *ListWriter) Object(o *Object) error {
	if l.names {
		l.line = AppendName(l.line[:0], o.Name)
	} else {
		l.line = AppendObject(l.line[:0], o)
	}
	_, err := l.w.Write(l.line)
	return err
}

// End writes the last line. err, if not nil, says why the listing broke off.
func (l *ListWriter) End(more bool, err error) error {
	end := ListEnd{End: true, More: more}
	if err != nil {
		end.Error = FromError(err)
	}
	b, err := json.Marshal(end)
	if err != nil {
		return err
	}
	if _, err := l.w.Write(append(b, '\n')); err != nil {
		return err
	}
	return l.w.Flush()
}

// ListReader reads a listing.
type ListReader struct {
	r   *bufio.Reader
	buf []byte
}

// NewListReader returns a reader from r.
func NewListReader(r io.Reader) *ListReader {
	return &ListReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// Next reads the next object into o, or the end, which is then not nil. A
// listing that is cut off is io.ErrUnexpectedEOF.
func (l *ListReader) Next(o *Object) (*ListEnd, error) {
	line, err := l.readLine()
	if err != nil {
		return nil, err
	}
	if parseObject(line, o) {
		return nil, nil
	}
	// Another order of keys, escapes, or the last line.
	var any struct {
		ListEnd
		Object
	}
	if err := json.Unmarshal(line, &any); err != nil {
		return nil, fmt.Errorf("listing: malformed line: %w", err)
	}
	if any.End {
		return &any.ListEnd, nil
	}
	*o = any.Object
	return nil, nil
}

func (l *ListReader) readLine() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if err == nil {
		return line, nil
	}
	l.buf = append(l.buf[:0], line...)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(l.buf) > 1<<20 {
			return nil, errors.New("listing: a line is longer than 1 MiB")
		}
		line, err = l.r.ReadSlice('\n')
		l.buf = append(l.buf, line...)
	}
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	return l.buf, err
}

// parseObject reads a line in exactly the form that AppendObject and AppendName
// write, without escapes. It returns false for every other line, whose reading
// is left to encoding/json, and then has not touched o.
func parseObject(line []byte, o *Object) bool {
	name, rest, ok := cutString(line, `{"name":"`)
	if !ok {
		return false
	}
	if string(rest) == "}\n" {
		*o = Object{Name: string(name)}
		return true
	}
	rest, ok = bytes.CutPrefix(rest, []byte(`,"size":`))
	digits := 0
	size := int64(0)
	for ; digits < len(rest) && digits < 18 && rest[digits] >= '0' && rest[digits] <= '9'; digits++ {
		size = size*10 + int64(rest[digits]-'0')
	}
	if !ok || digits == 0 {
		return false
	}
	etag, rest, ok := cutString(rest[digits:], `,"etag":"`)
	if !ok {
		return false
	}
	rest, cached := bytes.CutPrefix(rest, []byte(`,"cached":true`))
	if !cached {
		if rest, ok = bytes.CutPrefix(rest, []byte(`,"cached":false`)); !ok {
			return false
		}
	}
	stamp, rest, ok := cutString(rest, `,"modified":"`)
	if !ok || string(rest) != "}\n" {
		return false
	}
	modified, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return false
	}
	*o = Object{Name: string(name), Size: size, ETag: string(etag), Cached: cached, Modified: modified}
	return true
}

// cutString takes prefix, a string without escapes and its closing quote off b.
func cutString(b []byte, prefix string) (s, rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(prefix))
	if !ok {
		return nil, nil, false
	}
	i := bytes.IndexByte(b, '"')
	if i < 0 || bytes.IndexByte(b[:i], '\\') >= 0 || !utf8.Valid(b[:i]) {
		return nil, nil, false
	}
	for _, c := range b[:i] {
		if c < ' ' {
			return nil, nil, false
		}
	}
	return b[:i], b[i+1:], true
}
