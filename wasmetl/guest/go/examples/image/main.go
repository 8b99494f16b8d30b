//go:build wasip1

// Image makes a JPEG or PNG picture smaller.
//
//	--arg width=256 --arg height=256   the box that it has to fit into; one is enough
//	--arg format=png                   jpeg or png; as it is unless said
//	--arg quality=85                   of a JPEG, 1 to 100
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
	"image/jpeg"
	"image/png"
	"io"
	"strconv"

	"golang.org/x/image/draw"

	transform "github.com/shoalstore/shoal/wasmetl/guest/go"
)

// maxPixels is what can be decoded, and made smaller, within 64 MiB of memory. A few
// bytes of a file may stand for any number of pixels.
const maxPixels = 6 << 20

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
	src, format, err := decode(r)
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

// decode reads a picture whose head says that there is memory for it.
func decode(r io.Reader) (image.Image, string, error) {
	var head bytes.Buffer
	c, format, err := image.DecodeConfig(io.TeeReader(r, &head))
	if err != nil {
		return nil, "", fmt.Errorf("not a JPEG or PNG picture: %w", err)
	}
	if c.Width <= 0 || c.Height <= 0 || c.Width > maxPixels/c.Height {
		return nil, "", fmt.Errorf("a picture of %d x %d: %d pixels at most", c.Width, c.Height, maxPixels)
	}
	src, _, err := image.Decode(io.MultiReader(&head, r))
	if err != nil {
		return nil, "", fmt.Errorf("a %s picture of %d x %d: %w", format, c.Width, c.Height, err)
	}
	return src, format, nil
}

// scaled is a picture that fits into a box, of which one side may be 0.
func scaled(src image.Image, width, height int) image.Image {
	b := src.Bounds()
	w, h := b.Dx(), b.Dy()
	if width > 0 && w > width {
		w, h = width, max(1, h*width/w)
	}
	if height > 0 && h > height {
		w, h = max(1, b.Dx()*height/b.Dy()), height
	}
	if w == b.Dx() && h == b.Dy() {
		return src
	}
	dst := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.CatmullRom.Scale(dst, dst.Bounds(), src, b, draw.Src, nil)
	return dst
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
