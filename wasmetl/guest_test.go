package wasmetl_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	xdraw "golang.org/x/image/draw"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl"
)

// goGuest builds an example in Go.
func goGuest(t testing.TB, name string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), name+".wasm")
	args := []string{"build", "-trimpath", "-ldflags=-s -w", "-o", out}
	if !strings.HasSuffix(name, "wasi") {
		args = append(args, "-buildmode=c-shared")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, "./guest/go/examples/"+name)...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, msg)
	}
	return readFile(t, out)
}

// cGuest is an example in C, as guest/c/build.sh made it.
func cGuest(t testing.TB, name string) []byte {
	t.Helper()
	return readFile(t, filepath.Join("testdata", "c", name+".wasm"))
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func args(kv ...string) func(*core.TransformCall) {
	return func(c *core.TransformCall) {
		c.Args = map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			c.Args[kv[i]] = kv[i+1]
		}
	}
}

func archive(t *testing.T, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Mode: 0o600, Size: int64(len(files[i+1])), Format: tar.FormatUSTAR}
		if strings.HasSuffix(files[i], "/") {
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(files[i+1])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// text is the outcome with all outputs.
func text(r core.TransformResult, s *sink) string {
	var b strings.Builder
	fmt.Fprint(&b, r.Outcome)
	if r.Failure != nil {
		fmt.Fprintf(&b, " %s %d %q", r.Failure.Class, r.Failure.Code, r.Failure.Message)
	}
	for _, o := range s.outputs {
		if o.aborted != nil {
			continue
		}
		fmt.Fprintf(&b, " [%s]%q", o.info.Name, o.b.String())
		if len(o.info.Meta) > 0 {
			fmt.Fprint(&b, o.info.Meta)
		}
	}
	return b.String()
}

// object is one that a guest is given, and what has to come of it.
type object struct {
	data   string
	change []func(*core.TransformCall)
	want   string
}

func plain(data, want string, change ...func(*core.TransformCall)) object {
	return object{data, change, want}
}

// guest is an example with what it is tried on, in the table and beside it.
type guest struct {
	name    string
	wasm    func(testing.TB, string) []byte
	example string
	objects []object
	more    func(t *testing.T, h *wasmetl.Host, ref core.TransformRef)
}

// The examples do what they say, also a second time with an instance that was used.
func TestGuests(t *testing.T) {
	dir := t.TempDir()
	h := newHost(t, wasmetl.Options{Dir: dir, Budget: 8 << 30})
	guests := append(goGuests(t), cGuests(t)...)
	t.Run("all", func(t *testing.T) {
		for _, g := range guests {
			t.Run(g.name, func(t *testing.T) {
				t.Parallel() // one is built while another is compiled
				tryGuest(t, h, g)
			})
		}
	})
	list := h.List()
	for _, l := range list {
		t.Logf("%s: reused %d of %d, CPU p50 %v p99 %v, memory %d KiB", l.Ref.Name, l.Stats.Reused, l.Stats.Calls, l.Stats.CPUP50, l.Stats.CPUP99, l.Stats.PeakMemory>>10)
	}
	compiled, err := filepath.Glob(filepath.Join(dir, "*", "wazero-*", "*"))
	if err != nil || len(compiled) != len(list) {
		t.Errorf("%d files of compiled code, want one for each of %d guests: the node does not use what the child made (%v)", len(compiled), len(list), err)
	}
}

func tryGuest(t *testing.T, h *wasmetl.Host, g guest) {
	t.Helper()
	spec := wasmetl.Spec{Name: g.name}
	if g.name == "go-wasi" {
		spec.Args = map[string]string{"say": "word"}
	}
	wasm := g.wasm(t, g.example)
	began := time.Now()
	ref := install(t, h, spec, wasm)
	t.Logf("%d KiB installed in %v", len(wasm)>>10, time.Since(began))
	for range 2 {
		for _, o := range g.objects {
			r, s := run(t, h, ref, o.data, o.change...)
			if got := text(r, s); got != o.want {
				t.Errorf("%.20q: got\n%.2000s, want\n%.2000s\nlog %s", o.data, got, o.want, r.Log)
			}
		}
	}
	if g.more != nil {
		g.more(t, h, ref)
	}
}

func goGuests(t *testing.T) []guest {
	t.Helper()
	lines := `{"id":1,"lang":"en","text":"a \"word\"","m":{"score":0.75}}` + "\n" + `{"id":2,"lang":"de","m":{"score":2}}` + "\r\n\n" + `{"id":3,"lang":"en","m":7}`
	files := archive(t, "a.txt", "first", "sub/", "", "sub/b.txt", strings.Repeat("b", 1000), "../c", "away")
	long := strings.Repeat("b", 1000)
	const tooLong = 9 << 20
	line := `{"id":"` + strings.Repeat("x", 1<<20) + `"}` + "\n"
	return []guest{
		{"go-identity", goGuest, "identity", []object{
			plain("", `done []""`), plain("bytes", `done []"bytes"`), plain(long, fmt.Sprintf("done []%q", long)),
		}, nil},
		{"go-upper", goGuest, "upper", []object{
			plain("grüße", `done []"GRÜßE"map[case:upper]`), plain("a", `done []"A!"map[case:upper]`, args("suffix", "!")),
		}, nil},
		{"go-jsonlines", goGuest, "jsonlines", []object{
			plain(lines, `done []"{\"text\":\"a \\\"word\\\"\",\"id\":1}\n{\"id\":3}\n"`, args("where", "lang=en", "keep", "text,id")),
			plain(lines, `done []"{\"id\":2}\n"`, args("where", "lang!=en", "keep", "id")),
			plain(lines, `done []"{\"id\":1}\n"`, args("where", "m.score>0.5,m.score<=0.75", "keep", "id")),
			plain(lines, `done []"{\"id\":2}\n{\"id\":3}\n"`, args("where", "id>=2", "keep", "id")),
			plain(lines, `dropped`, args("where", "lang=fr")),
			plain(lines, `failed error 1 "where=lang: say FIELD=VALUE, or != < <= > >="`, args("where", "lang")),
			plain(lines, `failed error 1 "where=id<x: \"x\" is no number"`, args("where", "id<x")),
			plain("{}\nno JSON", `failed error 1 "line 2: invalid character 'o' in literal null (expecting 'u')"`),
			plain(line, fmt.Sprintf("done []%q", line)),
			plain("{}\n"+strings.Repeat(" ", tooLong), `failed error 1 "line 2 is longer than 8388608 bytes"`),
		}, nil},
		{"go-explode", goGuest, "explode", []object{
			plain(files, fmt.Sprintf(`done [x/a.txt]"first" [x/sub/b.txt]%q [x/c]"away"`, long), args("prefix", "x/")),
			plain("", "dropped"),
			plain(files[:514], `failed error 1 "a.txt: unexpected EOF"`),
			plain(strings.Repeat("no tar", 100), `failed error 1 "archive/tar: invalid tar header"`),
		}, explodesSources},
		{"go-csv", goGuest, "csv", append(csvObjects(),
			plain("a,b\n1,2\n\"x\"\"y\n,\",-3.5e2\n007,true\n", `done []"{\"a\":1,\"b\":2}\n{\"a\":\"x\\\"y\\n,\",\"b\":-3.5e2}\n{\"a\":\"007\",\"b\":true}\n"`, args("types", "guess")),
			plain("1,2\n", `done []"{\"x\":\"1\",\"y\":\"2\"}\n"`, args("header", "x,y")),
			plain("a,a\n1,2\n", `failed error 1 "two columns are named \"a\""`),
			plain("a,b\n1\n", `failed error 1 "record on line 2: wrong number of fields"`),
			plain("a,b\n1,x\"y\n", `failed error 1 "parse error on line 2, column 4: bare \" in non-quoted-field"`),
			plain("a,b\n\xff,2\n", `done []"{\"a\":\"\\ufffd\",\"b\":\"2\"}\n"`),
			plain("a\n\""+strings.Repeat("x", tooLong), `failed error 1 "a record is longer than 8388608 bytes: is a quote not closed?"`),
		), nil},
		{"go-normalize", goGuest, "normalize", []object{
			plain("\uFEFFe\u0301 \u212b", `done []"é Å"`),
			plain("e\u0301", "done []\"e\u0301\"", args("form", "none")),
			plain("\ufb01\u00b2", "done []\"\ufb01\u00b2\""),
			plain("\ufb01\u00b2", `done []"fi2"`, args("form", "nfkc")),
			plain("GRÜSSE  \t an\r\n  Alle  \n", `done []"grüsse an\nalle\n"`, args("case", "lower", "space", "collapse")),
			plain("a\u00a0\u2003b", `done []"A B"`, args("case", "upper", "space", "collapse")),
			plain("a\xffb", "done []\"a\uFFFDb\""), plain("", `done []""`),
			plain("ab\xffb", `failed error 1 "byte 2 is not UTF-8"`, args("invalid", "error")),
			plain("a", `failed error 1 "form=nfx: say one of [\"nfc\" \"nfkc\" \"none\"]"`, args("form", "nfx")),
		}, normalizes},
		{"go-redact", goGuest, "redact", []object{
			plain("write to a.b+c@example.org, now\r\n10.0.0.255 is up", `done []"write to [redacted], now\r\n[redacted] is up"`, args("find", "email,ipv4")),
			plain("4111 1111 1111 1111 but not 4111 1111 1111 1112\n", `done []"* but not 4111 1111 1111 1112\n"`, args("find", "card", "with", "*")),
			plain("id-17, id-x, id-4", `done []"<17>, id-x, <4>"`, args("pattern", "id-([0-9]+)", "with", "<${1}>")),
			plain("abc", `done []"abc"`, args("pattern", "x*")),
			plain("abc", `failed error 1 "error parsing regexp: missing closing ]: `+"`[a`"+`"`, args("pattern", "[a")),
			plain("abc", `failed error 1 "say --arg find=email,ipv4,card or pattern=EXPRESSION"`),
			plain(strings.Repeat("x", tooLong), `failed error 1 "line 1 is longer than 8388608 bytes"`, args("find", "card")),
		}, nil},
		{"go-image", goGuest, "image", []object{
			plain("no picture", `failed error 1 "not a JPEG or PNG picture: image: unknown format"`, args("width", "10")),
			plain("", `failed error 1 "not a JPEG or PNG picture: image: unknown format"`, args("width", "10")),
			plain("", `failed error 1 "say --arg width=PIXELS or height=PIXELS, or both"`),
			plain("", `failed error 1 "width=-1: say a number from 1 to 65536"`, args("width", "-1")),
		}, resizes},
		{"go-wasi", goGuest, "upperwasi", []object{
			plain("hello", `done []"HELLO A=B SAY=WORD"`, args("a", "b")), plain("", "dropped"),
		}, nil},
	}
}

func cGuests(t *testing.T) []guest {
	t.Helper()
	files := archive(t, "a.txt", "first")
	long := strings.Repeat("b", 1000)
	return []guest{
		{"c-identity", cGuest, "identity", []object{plain("", `done []""`), plain("bytes", `done []"bytes"`)}, nil},
		{"c-upper", cGuest, "upper", []object{plain("az{`AZ@[é"+long, fmt.Sprintf("done []%q", "AZ{`AZ@[é"+strings.ToUpper(long)))}, nil},
		{"c-grep", cGuest, "grep", []object{
			plain("a word\nnone\nand the word", `done []"a word\nand the word"`, args("word", "word")),
			plain("none\n", "dropped", args("word", "word")),
			plain("none\n", `failed error 1 "say --arg word=..."`),
			plain("x\n"+strings.Repeat("y", 2<<20), `failed error 1 "a line longer than 1 MiB"`, args("word", "word")),
		}, nil},
		{"c-explode", cGuest, "explode", []object{
			plain(archive(t, "a", "1", "b", "", "c/d", long), fmt.Sprintf(`done [a]"1" [b]"" [c/d]%q`, long)),
			plain(files[:514], `failed error 1 "the archive is cut off"`),
			plain(strings.Repeat("no tar", 100), `failed error 1 "not a tar archive of the ustar form"`),
		}, nil},
		{"c-csv", cGuest, "csv", append(csvObjects(),
			plain("a,b\n1\n", `failed error 1 "line 2: fewer columns than names"`),
			plain("a,b\n1,2,3\n", `failed error 1 "line 2: more columns than names"`),
			plain("a,b\n\n1,x\"y\n", `failed error 1 "line 3: a quote in a field that does not begin with one"`),
			plain("a\n\"x\"y\n", `failed error 1 "line 2: text after a closing quote"`),
			plain("a\n\"x\n", `failed error 1 "line 3: a quote is not closed"`),
			plain(strings.Repeat("a,", 1024)+"a\n", `failed error 1 "line 1: more than 1024 columns"`),
			plain(strings.Repeat("a", 70_000)+"\n", `failed error 1 "line 1: the names of the columns are longer than 64 KiB"`),
			plain("a\n"+strings.Repeat("x", 300<<10), fmt.Sprintf("done []%q", `{"a":"`+strings.Repeat("x", 300<<10)+"\"}\n")),
		), nil},
		{"c-identitywasi", cGuest, "identitywasi", []object{plain("", `done []""`), plain(long, fmt.Sprintf("done []%q", long))}, nil},
		{"c-wasi", cGuest, "upperwasi", []object{plain("hello", `done []"HELLO"`), plain("", `done []""`)}, nil},
	}
}

// csvObjects are those of which both examples make the same.
func csvObjects() []object {
	return []object{
		plain("a,b\n1,2\n", `done []"{\"a\":\"1\",\"b\":\"2\"}\n"`),
		plain("\uFEFF\"the \"\"a\"\"\",b\r\n\r\n\"1,\n2\",\\\r\n,ü", `done []"{\"the \\\"a\\\"\":\"1,\\n2\",\"b\":\"\\\\\"}\n{\"the \\\"a\\\"\":\"\",\"b\":\"ü\"}\n"`),
		plain("a\tb\n1\t2,\n", `done []"{\"a\":\"1\",\"b\":\"2,\"}\n"`, args("delimiter", "tab")),
		plain("a;b\n\"\";x\x01\n", `done []"{\"a\":\"\",\"b\":\"x\\u0001\"}\n"`, args("delimiter", ";")),
		plain("", `done []""`), plain("a,b\n", `done []""`), plain("a,b\n1,", `done []"{\"a\":\"1\",\"b\":\"\"}\n"`),
	}
}

// moduleDir is where the source of a module is, with its test data.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatalf("where is %s: %v", module, err)
	}
	return strings.TrimSpace(string(out))
}

// Real pictures, whole and broken, and ones that say that they are huge.
func resizes(t *testing.T, h *wasmetl.Host, ref core.TransformRef) {
	pictures := filepath.Join(moduleDir(t, "golang.org/x/image"), "testdata")
	photo := string(readFile(t, filepath.Join(pictures, "go-turns-two-280x360.jpeg")))
	drawing := string(readFile(t, filepath.Join(pictures, "blue-purple-pink-large.png")))
	for _, tt := range []struct {
		data                     string
		change                   func(*core.TransformCall)
		format, contentType, ext string
		width, height            int
	}{
		{photo, args("width", "70"), "jpeg", "image/jpeg", "jpg", 70, 90},
		{photo, args("width", "100", "height", "36", "format", "png"), "png", "image/png", "png", 28, 36},
		{photo, args("width", "201", "height", "400", "format", "png"), "png", "image/png", "png", 201, 258},
		{photo, args("width", "1000", "quality", "10"), "jpeg", "image/jpeg", "jpg", 280, 360},
		{drawing, args("height", "100", "format", "jpeg"), "jpeg", "image/jpeg", "jpg", 150, 100},
	} {
		r, s := run(t, h, ref, tt.data, tt.change)
		if r.Outcome != core.TransformDone {
			t.Errorf("%d x %d: %v", tt.width, tt.height, r.Failure)
			continue
		}
		got, format, err := image.Decode(strings.NewReader(s.only(t)))
		if err != nil {
			t.Errorf("%s: %v", tt.format, err)
			continue
		}
		size := got.Bounds().Size()
		if o := s.outputs[0].info; format != tt.format || o.ContentType != tt.contentType || o.Ext != tt.ext || size != image.Pt(tt.width, tt.height) {
			t.Errorf("got %s, %v, %+v, want %s, %d x %d", format, size, o, tt.format, tt.width, tt.height)
			continue
		}
		want := image.NewRGBA(got.Bounds())
		src, _, err := image.Decode(strings.NewReader(tt.data))
		if err != nil {
			t.Fatal(err)
		}
		xdraw.BiLinear.Scale(want, want.Bounds(), src, src.Bounds(), xdraw.Src, nil)
		if d := difference(got, want); d > 8 {
			t.Errorf("%d x %d: %.1f of 255 away from what another program makes", tt.width, tt.height, d)
		}
	}
	flipped := []byte(drawing)
	flipped[len(flipped)/2] ^= 1
	for say, data := range map[string]string{
		"280 x 360: invalid":    photo[:len(photo)/2],
		"not a JPEG or PNG":     drawing[:20],
		"invalid":               string(flipped),
		"a jpeg picture of":     photo[:1000] + strings.Repeat("\x00", 100),
		"65000 x 65000 takes":   hugeJPEG(t, photo),
		"image: unknown format": "GIF89a" + photo,
		"3000 x 3000 takes":     pngOf(t, image.NewNRGBA64(image.Rect(0, 0, 3000, 3000))),
	} {
		r, _ := run(t, h, ref, data, args("width", "10"))
		if r.Failure == nil || r.Failure.Class != "error" || !strings.Contains(r.Failure.Message, say) {
			t.Errorf("got %v, want an error with %q", r.Failure, say)
		}
	}
	// What there is said to be room for does fit.
	large := image.NewNRGBA(image.Rect(0, 0, 2400, 2400))
	draw.Draw(large, image.Rect(100, 100, 500, 500), image.NewUniform(color.NRGBA{200, 0, 0, 99}), image.Point{}, draw.Src)
	for width, data := range map[string]string{"1700": pngOf(t, large), "300": jpegOf(t, large)} {
		if r, _ := run(t, h, ref, data, args("width", width, "format", "jpeg")); r.Outcome != core.TransformDone {
			t.Errorf("5.8 million pixels: %v", r.Failure)
		}
	}
}

func pngOf(t *testing.T, p image.Image) string {
	t.Helper()
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func jpegOf(t *testing.T, p image.Image) string {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, p, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// difference is the mean of the differences of two pictures' values, before white.
func difference(a, b image.Image) float64 {
	flat := func(p image.Image) []uint8 {
		dst := image.NewRGBA(p.Bounds())
		draw.Draw(dst, dst.Bounds(), image.NewUniform(color.White), image.Point{}, draw.Src)
		draw.Draw(dst, dst.Bounds(), p, p.Bounds().Min, draw.Over)
		return dst.Pix
	}
	pa, pb, sum := flat(a), flat(b), 0
	for i := range pa {
		d := int(pa[i]) - int(pb[i])
		sum += max(d, -d)
	}
	return float64(sum) / float64(len(pa))
}

// hugeJPEG is a picture whose head says that it is 65,000 pixels wide and high.
func hugeJPEG(t *testing.T, photo string) string {
	t.Helper()
	at := strings.Index(photo, "\xff\xc0")
	if at < 0 {
		t.Fatal("the picture is not a baseline JPEG")
	}
	b := []byte(photo)
	copy(b[at+5:], "\xfd\xe8\xfd\xe8")
	return string(b)
}

// An archive as tar makes it, with long names: all that is in this directory.
func explodesSources(t *testing.T, h *wasmetl.Host, ref core.TransformRef) {
	archive, err := exec.CommandContext(t.Context(), "tar", "-cf", "-", "--transform=s,^,"+strings.Repeat("a-long-directory/", 10)+",", "--exclude=testdata", ".").Output()
	if err != nil {
		t.Fatalf("tar: %v", err)
	}
	r, s := run(t, h, ref, string(archive))
	if r.Outcome != core.TransformDone || len(s.outputs) < 40 {
		t.Fatalf("%v (%v), %d outputs", r.Outcome, r.Failure, len(s.outputs))
	}
	for _, o := range s.outputs {
		name := strings.TrimPrefix(o.info.Name, strings.Repeat("a-long-directory/", 10))
		if want := readFile(t, name); !bytes.Equal(o.b.Bytes(), want) {
			t.Errorf("%s: %d bytes, want the %d of the file", name, o.b.Len(), len(want))
		}
	}
}

// A text that is large enough for many chunks; characters lie across their borders.
func normalizes(t *testing.T, h *wasmetl.Host, ref core.TransformRef) {
	decomposed := strings.Repeat("Cafe\u0301  n\u0303\n", 30_000)
	r, s := run(t, h, ref, decomposed, args("space", "collapse", "case", "lower"))
	if want := strings.Repeat("café ñ\n", 30_000); r.Outcome != core.TransformDone || s.only(t) != want {
		t.Errorf("%v (%v): %d bytes, want %d", r.Outcome, r.Failure, len(s.only(t)), len(want))
	}
}
