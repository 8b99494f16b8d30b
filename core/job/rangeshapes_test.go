package job

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// shapes are key spaces as people have them, of about n keys each.
func keyShapes(n int) map[string][]string {
	rng := rand.New(rand.NewPCG(7, 7))
	words := func(alphabet string, size int) string {
		letters := []rune(alphabet)
		var b strings.Builder
		for range size {
			b.WriteRune(letters[rng.IntN(len(letters))])
		}
		return b.String()
	}
	each := func(f func(i int) string) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = f(i)
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	day := time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
	return map[string][]string{
		"counter":  each(func(i int) string { return fmt.Sprintf("img-%08d.jpg", i) }),
		"unpadded": each(func(i int) string { return fmt.Sprintf("file%d", i) }),
		"hex":      each(func(i int) string { s := sha256.Sum256([]byte(fmt.Sprint(i))); return hex.EncodeToString(s[:16]) }),
		"uuid paths": each(func(i int) string {
			s := sha256.Sum256([]byte(fmt.Sprint("u", i)))
			h := hex.EncodeToString(s[:16])
			return "objects/" + h[:2] + "/" + h[2:4] + "/" + h[4:]
		}),
		"deep": each(func(i int) string {
			return fmt.Sprintf("data/train/class%03d/part%d/sample-%06d.tar", i%97, i/97%7, i)
		}),
		"dates": each(func(i int) string {
			at := day.Add(time.Duration(i) * 97 * time.Second)
			return at.Format("logs/2006/01/02/15/") + fmt.Sprintf("host-%d.log.gz", i%13)
		}),
		"one prefix": each(func(i int) string {
			if i < 260 {
				return fmt.Sprintf("%c/%d", 'a'+i%26, i/26)
			}
			return fmt.Sprintf("m/big/%07d", i)
		}),
		"two heaps": each(func(i int) string {
			if i%20 == 0 {
				return fmt.Sprintf("archive/%06d", i)
			}
			return fmt.Sprintf("zz/last/%s", words("0123456789abcdef", 12))
		}),
		"letters": each(func(int) string {
			return words("abcdefghijklmnopqrstuvwxyz", 3) + "/" + words("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 8)
		}),
		"base64": each(func(int) string { return words("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", 22) }),
		"cyrillic": each(func(i int) string {
			return "фото/" + words("абвгдежзийклмнопрстуфхцчшщъыьэюя", 6) + fmt.Sprint("/", i)
		}),
		"han": each(func(i int) string {
			return words("一三上下中人大天女子学小山川左年手文日月木本村林校森正気水火犬玉王生田男町白百目石空立竹糸", 4) + fmt.Sprintf("%05d", i)
		}),
		"emoji": each(func(i int) string {
			return words("😀😁😂🤣😃😄😅😆😉😊🚀🚁🚂🚃", 5) + fmt.Sprint(i%1000)
		}),
		"odd": each(func(i int) string { return words(" !#$%&'()*+,-.:;<=>?@[]^_`{|}~", 8) + fmt.Sprint(i) }),
	}
}

func mapsKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
