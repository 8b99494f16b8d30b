package client

import (
	"encoding/base64"
	"encoding/binary"

	"github.com/minio/crc64nvme"
)

// The headers of S3's checksum CRC64NVME, which covers data end to end: it is
// computed here over what is sent and compared with what is received.
const (
	checksumHeader = "X-Amz-Checksum-Crc64nvme"
	checksumType   = "X-Amz-Checksum-Type"
	checksumName   = "CRC64NVME"
	wholeObject    = "FULL_OBJECT"
)

// crc is the CRC64NVME of a run of bytes.
type crc uint64

func (c crc) add(p []byte) crc { return crc(crc64nvme.Update(uint64(c), p)) }

// String is the form in headers.
func (c crc) String() string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(c)))
}

// polynomial is CRC64NVME's, bits reflected.
const polynomial = 0x9A6C9329AC4BC9B5

// join returns the checksum of a run of bytes with checksum c followed by one
// of n bytes with checksum next. It multiplies c by x^(8n) modulo the
// polynomial, by repeated squaring of the matrix that shifts in one zero bit.
func (c crc) join(next crc, n int64) crc {
	var shift [64]uint64 // shift[i] is what bit i becomes
	shift[0] = polynomial
	for i := 1; i < 64; i++ {
		shift[i] = 1 << (i - 1)
	}
	for range 3 { // by a byte
		shift = square(&shift)
	}
	v := uint64(c)
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			v = times(&shift, v)
		}
		shift = square(&shift)
	}
	return crc(v) ^ next
}

func times(m *[64]uint64, v uint64) (sum uint64) {
	for i := 0; v != 0; i, v = i+1, v>>1 {
		if v&1 != 0 {
			sum ^= m[i]
		}
	}
	return sum
}

func square(m *[64]uint64) (out [64]uint64) {
	for i := range m {
		out[i] = times(m, m[i])
	}
	return out
}
