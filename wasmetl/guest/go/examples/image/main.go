//go:build wasip1

// Image makes a JPEG or PNG picture smaller.
//
//	--arg width=256 --arg height=256   the box that it has to fit into; one is enough
//	--arg format=png                   jpeg or png; as it is unless said
//	--arg quality=85                   of a JPEG, 1 to 100
//	--arg room=240                     MiB that the pictures may take, for a transform
//	                                   with --memory 256MiB; 46 unless said
//
// The picture's proportions stay, and one that fits is not made larger. Orientation
// and other metadata in the file are not kept.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io"
	"strconv"

	transform "github.com/shoalstore/shoal/wasmetl/guest/go"
)

func init() { transform.Handle(resize) }

func main() {}

func resize(r io.Reader, w io.Writer) error {
	width, err := number("width", 0, 1, 1<<16)
	if err != nil {
		return err
	}
	height, err := number("height", 0, 1, 1<<16)
	if err != nil {
		return err
	}
	quality, err := number("quality", 85, 1, 100)
	if err != nil {
		return err
	}
	if width == 0 && height == 0 {
		return errors.New("say --arg width=PIXELS or height=PIXELS, or both")
	}
	room, err := number("room", 46, 1, 1024)
	if err != nil {
		return err
	}
	src, format, err := decode(r, width, height, int64(room)<<20)
	if err != nil {
		return err
	}
	if to, ok := transform.Arg("format"); ok {
		format = to
	}
	dst := scaled(src, width, height)
	out := bufio.NewWriterSize(w, 32<<10)
	switch format {
	case "jpeg", "jpg":
		if err := describe("image/jpeg", "jpg"); err != nil {
			return err
		}
		err = jpeg.Encode(out, opaque(dst), &jpeg.Options{Quality: quality})
	case "png":
		if err := describe("image/png", "png"); err != nil {
			return err
		}
		err = png.Encode(out, dst)
	default:
		return fmt.Errorf("format=%s: say jpeg or png", format)
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

// number is an argument that is a number.
func number(name string, unless, least, most int) (int, error) {
	text, ok := transform.Arg(name)
	if !ok {
		return unless, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s=%s: say a number from %d to %d", name, text, least, most)
	}
	return n, nil
}

// decode reads a picture whose head says that there is room for it, and for a smaller
// one: a few bytes of a file may stand for any number of pixels.
func decode(r io.Reader, width, height int, room int64) (image.Image, string, error) {
	var head bytes.Buffer
	c, format, err := image.DecodeConfig(io.TeeReader(r, &head))
	if err != nil {
		return nil, "", fmt.Errorf("not a JPEG or PNG picture: %w", err)
	}
	if c.Width <= 0 || c.Height <= 0 || c.Width > 1<<16 || c.Height > 1<<16 {
		return nil, "", fmt.Errorf("a picture of %d x %d", c.Width, c.Height)
	}
	w, h := fitting(c.Width, c.Height, width, height)
	need := int64(c.Width)*int64(c.Height)*pixelBytes(c, format, head.Bytes()) + 2*4*int64(w)*int64(h)
	if need > room {
		return nil, "", fmt.Errorf("a picture of %d x %d takes %d MiB, there are %d: give the transform more --memory, and say --arg room=MIB", c.Width, c.Height, need>>20, room>>20)
	}
	src, _, err := image.Decode(io.MultiReader(&head, r))
	if err != nil {
		return nil, "", fmt.Errorf("a %s picture of %d x %d: %w", format, c.Width, c.Height, err)
	}
	return src, format, nil
}

// pixelBytes is what decoding takes for a pixel.
func pixelBytes(c image.Config, format string, head []byte) int64 {
	n := int64(4)
	switch {
	case format == "jpeg" && bytes.Contains(head, []byte("\xff\xc2")):
		return 16 // a progressive one: all coefficients are kept
	case c.ColorModel == color.NRGBA64Model || c.ColorModel == color.RGBA64Model:
		n = 8
	}
	const interlace = 28 // where a PNG says so
	if format == "png" && len(head) > interlace && head[interlace] == 1 {
		n *= 2 // an interlaced one
	}
	return n
}

// fitting is the size that fits into a box, of which one side may be 0.
func fitting(w, h, width, height int) (int, int) {
	fw, fh := w, h
	if width > 0 && fw > width {
		fw, fh = width, max(1, h*width/w)
	}
	if height > 0 && fh > height {
		fw, fh = max(1, w*height/h), height
	}
	return fw, fh
}

// scaled is a picture made to fit into a box. Each of its pixels is the mean of the
// area of which it is made; that takes the memory of a few lines.
func scaled(src image.Image, width, height int) image.Image {
	b := src.Bounds()
	sw, sh := b.Dx(), b.Dy()
	w, h := fitting(sw, sh, width, height)
	if w == sw && h == sh {
		return src
	}
	dst := image.NewRGBA(image.Rect(0, 0, w, h))
	line := image.NewRGBA(image.Rect(0, 0, sw, 1))
	narrow, sum := make([]uint64, 4*w), make([]uint64, 4*w)
	area := uint64(sw) * uint64(sh)
	// In units of 1/h of a source line, a line of the result is sh high, and one of
	// the source h; in units of 1/w across, likewise.
	for y, left, row := 0, sh, 0; y < sh; y++ {
		draw.Draw(line, line.Bounds(), src, image.Pt(b.Min.X, b.Min.Y+y), draw.Src)
		shrink(narrow, line.Pix, sw, w)
		for rest := h; rest > 0; {
			part := min(rest, left)
			for i, v := range narrow {
				sum[i] += v * uint64(part)
			}
			rest -= part
			if left -= part; left > 0 {
				continue
			}
			for i, v := range sum {
				dst.Pix[row*dst.Stride+i] = uint8((v + area/2) / area)
			}
			clear(sum)
			left = sh
			row++
		}
	}
	return dst
}

// shrink makes a line of w pixels of one of sw: sums, of which each is sw units wide.
func shrink(to []uint64, from []uint8, sw, w int) {
	clear(to)
	left, at := sw, 0
	for x := range sw {
		pixel := from[4*x : 4*x+4 : 4*x+4]
		for rest := w; rest > 0; {
			part := min(rest, left)
			for c, v := range pixel {
				to[4*at+c] += uint64(v) * uint64(part)
			}
			rest -= part
			if left -= part; left == 0 {
				left, at = sw, at+1
			}
		}
	}
}

// opaque puts a picture before white if it can be seen through: JPEG has no way to.
func opaque(p image.Image) image.Image {
	if o, ok := p.(interface{ Opaque() bool }); !ok || o.Opaque() {
		return p
	}
	dst := image.NewRGBA(p.Bounds())
	draw.Draw(dst, dst.Bounds(), image.NewUniform(color.White), image.Point{}, draw.Src)
	draw.Draw(dst, dst.Bounds(), p, p.Bounds().Min, draw.Over)
	return dst
}

func describe(contentType, ext string) error {
	if err := transform.SetContentType(contentType); err != nil {
		return err
	}
	return transform.SetExt(ext)
}
